"""The engine that drives another tool of the family, `wal-e` or `wal-g`, as a program."""
