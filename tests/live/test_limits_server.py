"""The limits of a server, as its clients see and feel them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from sandbox_local import LocalServer
from sandbox_local.isolation.limits.groups import Groups
from sandbox_sync import Sandbox

_MIB = 1 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    """A server whose sandboxes may have little."""
    groups = Groups()
    groups.close()
    if groups.enforcement.shortfalls:
        pytest.skip(f"no control groups: {groups.enforcement.shortfalls}")
    with LocalServer(memory="256M", disk=64 * _MIB, processes=100, cpus=1) as running:
        yield running


def test_answers_tell_the_limits(server_env: dict[str, str]) -> None:
    with Sandbox.create() as sandbox:
        info = sandbox.get_info()
        assert (info.cpu_count, info.memory_mb) == (1, 256)
        [metric] = sandbox.get_metrics()
        assert (metric.cpu_count, metric.mem_total, metric.disk_total) == (1, 256 * _MIB, 64 * _MIB)
        before = metric.mem_used
        sandbox.commands.run("head -c 32M /dev/zero > /tmp/x")
        [metric] = sandbox.get_metrics()
        # The kernel counts in batches for each processor.
        assert 31 * _MIB <= metric.mem_used - before <= 64 * _MIB, "files count as memory"


def test_a_fork_bomb_leaves_the_server_and_the_sandbox_answering(server_env: dict[str, str]) -> None:
    """G7: is_running and kill answer within 5 s under a fork bomb, and other sandboxes go on."""
    with Sandbox.create() as other, Sandbox.create() as sandbox:
        sandbox.commands.run("bomb() { bomb | bomb & }; bomb; sleep 1000", background=True)
        for _ in range(5):
            began = time.monotonic()
            assert sandbox.is_running()
            assert other.commands.run("echo alive").stdout == "alive\n"
            assert time.monotonic() - began < 5
        began = time.monotonic()
        assert sandbox.kill()
        assert time.monotonic() - began < 5
        assert other.is_running()


def test_a_command_out_of_memory_ends_alone(server_env: dict[str, str]) -> None:
    """G7: its sandbox lives on."""
    with Sandbox.create() as sandbox:
        hog = sandbox.commands.run("exec python3 -c 'x = bytearray(1 << 30)'", check=False)
        assert hog.exit_code != 0
        assert sandbox.commands.run("echo alive").stdout == "alive\n"
        assert sandbox.files.write("x", "y")
