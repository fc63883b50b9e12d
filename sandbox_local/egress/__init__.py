"""The way out of sandboxes: what each may reach, and the relays that take it there."""
