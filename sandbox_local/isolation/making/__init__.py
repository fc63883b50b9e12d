"""Making boxes: the process that forks them, and the root file system that they get."""
