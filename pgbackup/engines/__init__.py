"""How backups are made and restored: the native engine, and the tools of the WAL-E family."""
