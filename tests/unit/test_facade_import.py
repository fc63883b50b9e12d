"""What importing the package costs and gives."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import sandbox_sync


def run(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    ).stdout


def test_importing_loads_nothing_else() -> None:
    """G52: ssl, urllib3, requests and everything else heavy stays out until it is used."""
    loaded = run(
        "import sys; before = set(sys.modules); import sandbox_sync; print(*set(sys.modules) - before)"
    )
    assert set(loaded.split()) == {"sandbox_sync", "sandbox_sync._before_fork", "sandbox_sync._version"}


def test_looking_up_the_facade_loads_nothing_that_only_calls_need() -> None:
    """G52: what talks to servers waits for a call."""
    loaded = run("import sys; from sandbox_sync import Sandbox; print(*sys.modules)").split()
    heavy = {"asyncio", "email", "google", "grpc", "hashlib", "http", "platform", "pydantic", "pydantic_core"}
    heavy |= {"random", "requests", "socket", "ssl", "tenacity", "urllib3", "uuid"}
    assert not heavy & set(loaded)
    ours = {name.partition("sandbox_sync.")[2] for name in loaded if name.startswith("sandbox_sync")}
    core = {"", "_before_fork", "_class_or_instance", "_later", "_version", "access", "ambient", "by_id"}
    core |= {"config", "deadlines", "errors", "lease", "listing", "models", "models.connection", "options"}
    core |= {"sandbox", "transport", "transport.conditions", "transport.forks", "transport.green"}
    core |= {"transport.signals", "transport.threads"}
    assert ours == core


def test_a_module_for_later_is_the_module_itself_when_it_is_used() -> None:
    """So what replaces something in it, as tests do, is seen by who uses it through `later`."""
    code = """
import sys, sandbox_sync.sandbox as facade
assert "sandbox_sync.lifecycle" not in sys.modules
facade.control.create
from sandbox_sync import lifecycle
lifecycle.create = "another"
print(facade.control.create, hasattr(facade.control, "nothing"), facade.control)
"""
    assert run(code).split(None, 2) == ["another", "False", "later('sandbox_sync.lifecycle')\n"]


def test_threads_that_are_first_at_the_same_time_find_the_same() -> None:
    code = """
import threading
from sandbox_sync import sandbox as facade
start = threading.Barrier(8)
found = []

def look() -> None:
    start.wait()
    found.append((facade.insides.Inside, facade.control.create, facade.queries.get_info))

threads = [threading.Thread(target=look) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(found), len(set(found)))
"""
    assert run(code).split() == ["8", "1"]


def test_what_a_signal_finds_half_loaded_is_loaded_whole(tmp_path: Path) -> None:
    """G18: Ctrl-C in the middle of the first call leaves nothing behind that no later call can load."""
    package = tmp_path / "fragile"
    package.mkdir()
    # That `part` is an attribute of the package holds only if both are loaded by the same import.
    (package / "__init__.py").write_text("from .part import *\nfrom .slow import *\nvalue = part.value\n")
    (package / "part.py").write_text("value = 'whole'\n")
    (package / "slow.py").write_text(
        "import os, signal\n"
        "if not os.environ.pop('STRUCK', None):\n"
        "    os.environ['STRUCK'] = '1'\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
    )
    code = f"""
import signal, sys
from sandbox_sync._later import later
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {str(tmp_path)!r})
fragile = later("fragile")
try:
    fragile.value
except KeyboardInterrupt:
    print("interrupted")
print(fragile.value)
"""
    assert run(code).split() == ["interrupted", "whole"]


def test_what_cannot_be_loaded_says_why() -> None:
    code = """
from sandbox_sync._later import later
try:
    later("sandbox_sync.nothing").value
except ModuleNotFoundError as error:
    print(error)
"""
    assert run(code) == "No module named 'sandbox_sync.nothing'\n"


def test_importing_starts_no_thread() -> None:
    """G33: one thread in the process after the import, and no grpc."""
    code = """
import os, sys, threading, sandbox_sync
print(threading.active_count(), len(os.listdir("/proc/self/task")), "grpc" in sys.modules)
"""
    assert run(code).split() == ["1", "1", "False"]


def test_every_name_is_there_and_the_same_for_type_checkers() -> None:
    for name in sandbox_sync.__all__:
        assert getattr(sandbox_sync, name) is not None
        assert name in dir(sandbox_sync)
    tree = ast.parse(Path(sandbox_sync.__file__).read_text())
    stated = {
        (alias.asname, node.module)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert stated == {(name, f"sandbox_sync.{module}") for name, module in sandbox_sync._MODULES.items()}


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(sandbox_sync, "AsyncSandbox")
