"""From the repository to a directory that a server recovers in, and the WAL that it asks for while it does."""
