"""Limits where there are no control groups: those of processes, and plain words about what they are worth."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.live.unprivileged import run_unprivileged

_PROGRAM = """
import asyncio, json, os
from sandbox_local.isolation.base import BoxSpec, Command, IsolationError, Limits
from sandbox_local.isolation.namespaces import NamespaceBackend

async def run(box, script, user="user"):
    process = await box.spawn(Command(["/bin/bash", "-c", script], user))
    for fd in (process.stderr, process.stdout):
        os.set_blocking(fd, True)
    err = await asyncio.to_thread(open(process.stderr, "rb").read)
    out = await asyncio.to_thread(open(process.stdout, "rb").read)
    return [(await process.exit).code, out.decode(), err.decode()]

async def main():
    backend = NamespaceBackend()
    await backend.start()
    told = {"shortfalls": [vars(shortfall) for shortfall in backend.enforcement.shortfalls]}
    box = await backend.create(BoxSpec("box", limits=Limits(memory_bytes=128 << 20, processes=32)))
    hog = "python3 -c 'held = bytearray(%d << 20); print(1)'"
    told["little"] = await run(box, hog % 32)
    told["much"] = await run(box, hog % 200)
    told["forks"] = await run(box, "for i in $(seq 64); do sleep 9 & done")
    told["score"] = await run(box, "cat /proc/self/oom_score_adj /proc/1/oom_score_adj")
    told["address space"] = await run(
        box, "python3 -c 'import mmap; mmap.mmap(-1, 1 << 33, prot=mmap.PROT_READ); print(1)'"
    )
    told["alive"] = await run(box, "echo alive", "root")
    try:
        await backend.create(BoxSpec("other", limits=Limits(cpus=0.5)))
        told["refusal"] = ""
    except IsolationError as error:
        told["refusal"] = str(error)
    await backend.close()
    print(json.dumps(told))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What an unprivileged server's box is like."""
    report: dict[str, Any] = json.loads(run_unprivileged(_PROGRAM))
    if not report["shortfalls"]:
        pytest.skip("this user may make control groups")
    return report


def test_each_process_has_bounded_memory(told: dict[str, Any]) -> None:
    """Of data, not of addresses, which some runtimes reserve much of."""
    assert told["little"][:2] == [0, "1\n"]
    assert told["much"][0] == 1
    assert "MemoryError" in told["much"][2]
    assert told["address space"][:2] == [0, "1\n"]


def test_each_user_has_a_bounded_number_of_processes(told: dict[str, Any]) -> None:
    """G7: and the box goes on answering when they are used up."""
    assert told["forks"][0] != 0
    assert "fork" in told["forks"][2]


def test_commands_go_before_the_agent(told: dict[str, Any]) -> None:
    command, agent = map(int, told["score"][1].split())
    assert command > agent


def test_what_is_not_bounded_is_said_with_cause_and_remedy(told: dict[str, Any]) -> None:
    assert [shortfall["resource"] for shortfall in told["shortfalls"]] == ["memory", "pids", "cpu"]
    for shortfall in told["shortfalls"]:
        assert shortfall["cause"]
        assert "root" in shortfall["remedy"] or "systemd-run" in shortfall["remedy"]
        assert shortfall["instead"]


def test_a_share_of_processors_that_nothing_stands_for_is_refused(told: dict[str, Any]) -> None:
    assert "processors can't be bounded" in told["refusal"]
    assert "Remedy: " in told["refusal"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--memory", "lots"], "'lots' is no size; write one such as 512M or 2G"),
        (["--memory", "1M"], "at least"),
        (["--memory", "1G", "--disk", "1G"], "at most 768M of disk"),
        (["--processes", "0"], "at least"),
        (["--cpus", "0"], "at least"),
    ],
)
def test_limits_that_make_no_sense_end_the_server_before_it_starts(arguments: list[str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sandbox_local", "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
