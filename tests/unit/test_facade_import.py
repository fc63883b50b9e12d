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


def test_looking_up_the_facade_leaves_out_what_only_some_calls_need() -> None:
    loaded = run("import sys; from sandbox_sync import Sandbox; print(*sys.modules)").split()
    assert not {"asyncio", "grpc", "pydantic", "tenacity"} & set(loaded)


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
