"""Is everything as backups need it: the server, the store, the key."""
