"""Isolated Linux environments made from kernel namespaces; `base` is the seam to the rest of the server."""
