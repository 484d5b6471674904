"""Object stores behind one port (base.py); the folder list is the backend list."""
