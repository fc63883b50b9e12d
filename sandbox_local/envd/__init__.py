"""envd: what answers inside of a sandbox, its processes and its files."""
