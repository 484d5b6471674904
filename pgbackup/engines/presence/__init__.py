"""Which process is at work on a repository, and whether it is still there."""
