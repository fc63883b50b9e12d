"""What this machine offers sandboxes, found out by making some and looking around in them."""
