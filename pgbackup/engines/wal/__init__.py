"""WAL on its way into the repository, and read out of it again: received, shipped whole and in pieces, pushed."""
