"""What the SDK hands out and takes in: plain data, with the documented names. A call loads what it needs."""
