"""The native engine: everything done by ourselves, over the replication protocol."""
