"""Sandboxes that live as long as the process that leased them."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone

import pytest

from sandbox_sync import Sandbox, SandboxNotFoundException

LEASE = 3
SLACK = 2.0

JOB = """
import os, sys, time
from sandbox_sync import Sandbox
sandbox = Sandbox.create(lease=3)
if os.fork() == 0:
    sys.exit()
os.wait()
print(sandbox.sandbox_id, flush=True)
time.sleep(120)
"""


def is_there(sandbox_id: str) -> bool:
    try:
        Sandbox.get_info(sandbox_id)
    except SandboxNotFoundException:
        return False
    return True


def gone_after(sandbox_id: str) -> float:
    began = time.monotonic()
    while is_there(sandbox_id):
        assert time.monotonic() - began < 30, "it was not ended"
        time.sleep(0.05)
    return time.monotonic() - began


def seconds_left(sandbox_id: str) -> float:
    return (Sandbox.get_info(sandbox_id).end_at - datetime.now(timezone.utc)).total_seconds()


@pytest.mark.usefixtures("server_env", "transport")
def test_it_outlives_leases_and_a_fork_and_goes_with_its_killed_process() -> None:
    """It lives for three leases, though a fork of the job exits; after SIGKILL it is gone within one."""
    job = subprocess.Popen([sys.executable, "-c", JOB], stdout=subprocess.PIPE, text=True)
    try:
        assert job.stdout is not None
        sandbox_id = job.stdout.readline().strip()
        assert sandbox_id
        until = time.monotonic() + 3 * LEASE + 0.5
        while time.monotonic() < until:
            assert is_there(sandbox_id)
            assert seconds_left(sandbox_id) <= LEASE
            time.sleep(0.2)
        os.kill(job.pid, signal.SIGKILL)
        job.wait(10)
        assert gone_after(sandbox_id) < LEASE + SLACK
    finally:
        job.kill()
        job.wait(10)
        assert job.stdout is not None
        job.stdout.close()


@pytest.mark.usefixtures("server_env", "transport")
def test_what_was_got_from_it_keeps_it_and_what_is_dropped_lapses() -> None:
    sandbox = Sandbox.create(lease=LEASE)
    sandbox_id, files = sandbox.sandbox_id, sandbox.files
    del sandbox
    gc.collect()
    time.sleep(LEASE + 1.5)
    files.write("kept", "")
    del files
    gc.collect()
    assert gone_after(sandbox_id) < LEASE + SLACK


@pytest.mark.usefixtures("server_env")
def test_setting_a_timeout_hands_it_over_and_connecting_takes_it_up() -> None:
    with Sandbox.create(lease=LEASE) as sandbox:
        sandbox.set_timeout(100)
        time.sleep(LEASE / 3 + 0.7)
        assert seconds_left(sandbox.sandbox_id) > 90
        taken = Sandbox.connect(sandbox.sandbox_id, lease=LEASE)
        until = time.monotonic() + 5
        while seconds_left(sandbox.sandbox_id) > LEASE:
            assert time.monotonic() < until, "the longer life was not cut"
        time.sleep(LEASE + 1)
        assert is_there(sandbox.sandbox_id)
        assert taken.kill()
