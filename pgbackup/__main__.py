"""``python -m pgbackup``."""

from pgbackup.cli.main import main

if __name__ == "__main__":
    main()
