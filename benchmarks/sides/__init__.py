"""The sides of the comparison: our SDK, the official one, and a floor. Each runs in a process of its own."""
