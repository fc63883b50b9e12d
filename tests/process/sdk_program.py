"""Runs programs that use the SDK in processes of their own, under a hard timeout."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass

TIMEOUT = 60.0

PRELUDE = """
import os, sys, threading, time
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.transport.envd import EnvdConnection
from sandbox_sync_rpc import process_pb2 as pb

def envd(**options):
    url = sys.argv[1]
    config = ConnectionConfig.resolve(api_key="k", api_url=url, sandbox_url=url, **options)
    return EnvdConnection(config, "i1")

def ask(envd, nonce, timeout=20):
    # The server answers with the user's name as the tag of a process.
    answer = envd.unary(envd.process.List, pb.ListRequest(), user=nonce, request_timeout=timeout)
    return answer.processes[0].tag == nonce

def exit_codes(pids):
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
"""


@dataclass
class Outcome:
    """How a program ended."""

    code: int
    output: str
    errors: str


def start(
    program: str, *arguments: str, before: str = "", options: tuple[str, ...] = (), **environment: str
) -> subprocess.Popen[str]:
    """Start a program; `before` and PRELUDE come before it."""
    source = "\n".join([before, PRELUDE, textwrap.dedent(program)])
    return subprocess.Popen(
        [sys.executable, *options, "-c", source, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> Outcome:
    """Wait for its end; a program that hangs is killed, and fails the test."""
    try:
        output, errors = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with the children that it has forked
        output, errors = process.communicate()
        raise AssertionError(f"it hung; it had said:\n{output}\n{errors}") from None
    return Outcome(process.returncode, output, errors)


def succeeds(
    program: str, *arguments: str, before: str = "", options: tuple[str, ...] = (), **environment: str
) -> str:
    """Run a program that has to end well; its output."""
    outcome = finish(start(program, *arguments, before=before, options=options, **environment))
    assert outcome.code == 0, f"{outcome.output}\n{outcome.errors}"
    return outcome.output
