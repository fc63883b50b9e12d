"""Runs promise programs: each in a process group of its own, which does not outlive it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.promises.promises import Promise

PROGRAMS = Path(__file__).parent / "programs"

OURS = ("ours-connect", "ours-grpc")
CLIENTS = (*OURS, "official")

# Settings for another server, another transport or gRPC itself that whoever runs the programs may have.
_FOREIGN = ("E2B_", "SANDBOX_SYNC_", "GRPC_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@dataclass(frozen=True)
class Outcome:
    """What a program has shown."""

    kept: bool
    seen: str
    errors: str = ""


def run(promise: Promise, client: str, server: Mapping[str, str]) -> Outcome:
    """Run the program of a promise.

    Args:
        promise: Which one.
        client: One of CLIENTS.
        server: The environment that leads to the server.
    """
    environment = {k: v for k, v in os.environ.items() if not k.upper().startswith(_FOREIGN)}
    environment |= {**server, "CLIENT": client, "PYTHONFAULTHANDLER": "1"}
    if client in OURS:
        environment["SANDBOX_SYNC_TRANSPORT"] = client.removeprefix("ours-")
    # Files, and no pipes: a child that hangs would hold a pipe open after the program itself has ended.
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAMS / f"{promise.program}.py"), *promise.arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=environment,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(promise.limit)
        except subprocess.TimeoutExpired:
            code = None
            _ask_where(process)
        finally:
            _kill_group(process.pid)
            process.wait()
        output.seek(0)
        errors.seek(0)
        return _judge(promise, code, output.read(), errors.read())


def _ask_where(process: subprocess.Popen[bytes]) -> None:
    """Have a program that hangs write what each of its threads is at, and end."""
    process.send_signal(signal.SIGABRT)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        pass  # it is stopped, or inside the kernel


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
    # Whoever asks next how many processes there are shall not meet these.
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
            time.sleep(0.002)
        except ProcessLookupError:
            return


def _judge(promise: Promise, code: int | None, output: str, errors: str) -> Outcome:
    try:
        said = json.loads(output.strip().rpartition("\n")[2])
        kept, seen = bool(said["kept"]), str(said["seen"])
    except (ValueError, TypeError, KeyError):
        kept, seen = False, ""
    if seen and (code == 0 or not kept):
        return Outcome(kept, seen, errors)
    if code is None:
        at = "hung at its exit" if seen else "hung"
        return Outcome(False, f"{at}; killed after {promise.limit:g} s", errors)
    last = errors.strip().rpartition("\n")[2][:100]
    return Outcome(False, last or f"ended with {code} and said nothing", errors)
