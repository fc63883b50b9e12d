"""The comparison of our SDK with the official one and with a floor: rows, rounds and results."""
