"""Base backups: what a backup says of itself while it is made and when it is done, and how we take one ourselves."""
