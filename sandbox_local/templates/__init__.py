"""Templates beside `base`: root file systems, where they are kept, and how they get there."""
