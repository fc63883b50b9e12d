"""What runs inside a box: its first process, and what that needs to run commands."""
