"""The wire: connections, REST, RPC channels and file transfer. Nothing here is public API."""
