"""``pgbackup demo``: the whole story on this machine in a minute, with real servers and nothing left behind."""
