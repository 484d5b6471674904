"""The native engine: streaming WAL, base backups, restore, verification over the replication protocol."""
