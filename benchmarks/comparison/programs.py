"""Rows that are whole processes: what an import costs, and a program that starts cold."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from sides.place import Place
from sides.usage import Sample

from comparison.workers import SideFailed

_MODULES = {"connect": "sandbox_sync", "grpc": "sandbox_sync", "official": "e2b"}

_COLD = """
from {module} import Sandbox
sandbox = Sandbox.create(timeout=60)
sandbox.commands.run("echo cold > file")
assert sandbox.files.read("file") == "cold\\n"
sandbox.kill()
"""


def run_once(key: str, side: str, place: Place) -> Sample:
    """Run the program of a row once. Times of imports are those beyond a Python that imports nothing."""
    module = _MODULES[side]
    if key == "cold":
        return _process(_COLD.format(module=module), side, place)
    then = f"\n{module}.Sandbox" if key == "import-used" else ""
    bare = _process("pass", side, place)
    sample = _process(f"import {module}{then}", side, place)
    seconds = sample["seconds"][0] - bare["seconds"][0]
    return {**sample, "seconds": [max(seconds, 1e-6)], "cpu": max(sample["cpu"] - bare["cpu"], 0.0)}


def _process(program: str, side: str, place: Place) -> Sample:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("E2B_")},
        # What is installed has been compiled. Where this is set, a checkout would be anew in every process.
        "PYTHONDONTWRITEBYTECODE": "",
        "E2B_API_URL": place.url,
        "E2B_SANDBOX_URL": place.url,
        "E2B_API_KEY": place.api_key,
        "SANDBOX_SYNC_TRANSPORT": side if side in ("connect", "grpc") else "",
    }
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", program], env=environment)
    _, status, used = os.wait4(process.pid, 0)
    took = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SideFailed(f"{side}: the program exited with {process.returncode}:\n{program}")
    return {
        "seconds": [took],
        "cpu": used.ru_utime + used.ru_stime,
        "before": 0,
        "peak": used.ru_maxrss << 10,
    }
