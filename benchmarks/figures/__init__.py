"""What `server.py` measures, one subject to a module."""
