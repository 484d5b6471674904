"""The proof from the bucket alone that backups, and the WAL that they need, are whole."""
