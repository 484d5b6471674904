"""pgbackup keeps one PostgreSQL server recoverable from an object store."""

__version__ = "0.1.0"
