"""The README's first example and the demo work on a machine with no network and no key."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Enter a network namespace with nothing but loopback, as root or by way of a user namespace.
WITHOUT_NETWORK = """
import ctypes, fcntl, os, socket, struct, sys
CLONE_NEWUSER, CLONE_NEWNET, SIOCSIFFLAGS, IFF_UP = 0x10000000, 0x40000000, 0x8914, 1
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(CLONE_NEWNET | (CLONE_NEWUSER if os.geteuid() else 0)):
    raise OSError(ctypes.get_errno(), "unshare")
probe = socket.socket()
fcntl.ioctl(probe, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
assert [name for _, name in socket.if_nameindex()] == ["lo"]
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def run_without_network(runtime_directory: Path, *arguments: str) -> str:
    runtime_directory.mkdir(mode=0o700, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("E2B_")}
    environment["XDG_RUNTIME_DIR"] = str(runtime_directory)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_NETWORK, *arguments],
        env=environment,
        cwd=runtime_directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def first_python_block(markdown: str) -> str:
    block = re.search(r"```python\n(.*?)```", markdown, re.DOTALL)
    assert block is not None
    return block.group(1)


def test_readme_example_runs_without_network_key_or_server(tmp_path: Path) -> None:
    """G26: with no network and no key, the README's first example prints what it promises."""
    example = first_python_block((ROOT / "README.md").read_text())
    assert run_without_network(tmp_path / "runtime", "-c", example).strip() == "hello from sandbox"


@pytest.mark.timeout(90)
def test_demo_runs_without_network_key_or_server(tmp_path: Path) -> None:
    """G26: the demo does all its steps; a second run joins the server that the first one started."""
    first = run_without_network(tmp_path / "runtime", str(ROOT / "examples" / "demo.py"))
    assert "rise over the last 20 years: 2.30 ppm a year" in first
    assert "steepest year: 2016, +3.40 ppm" in first
    assert '{"rows": 65, "ppm_per_year": 2.3}' in first
    assert "EVERY CALL BLOCKS" in first
    assert "files of the host that it sees: 0" in first
