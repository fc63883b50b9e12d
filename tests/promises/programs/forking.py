"""Tests that pytest runs in children of a process that has used the SDK.

usage: forking.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from client import report

HERE = Path(__file__).parent
# Python 3.12 and later warn of forks beside other threads, here the one that follows a command.
COMMAND = (
    "-m",
    "pytest",
    "-c",
    "/dev/null",
    "--rootdir",
    ".",
    "-p",
    "no:cacheprovider",
    "-p",
    "forking_plugin",
    "-p",
    "no:warnings",
    "-q",
)
SECONDS = 20

try:
    ended = subprocess.run(
        [sys.executable, *COMMAND, "forking_tests.py"],
        cwd=HERE,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
except subprocess.TimeoutExpired:
    report(False, f"hung; killed after {SECONDS} s")
print(ended.stdout, ended.stderr, file=sys.stderr)  # noqa: T201
said = ended.stdout.strip().rpartition("\n")[2].strip("= ").rpartition(" in ")[0]
report(ended.returncode == 0 and said == "5 passed", said or f"ended with {ended.returncode}")
