"""How backups are made, proven, expired and restored.

``native`` and ``wale`` are the engines behind the port (port.py): ourselves, and the tools of the WAL-E family. The
other rooms are the same for both: wal, backup, restore, verify, expire, check. The order of the rooms is an import
contract in pyproject.toml.
"""
