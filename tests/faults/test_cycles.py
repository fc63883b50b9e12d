"""Sandboxes come and go, a thousand times: a server that has run for long is like one that has just begun."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.faults.census import Census, memory, wait_until_as_before
from tests.faults.servers import FaultServer, Identity

TIMES = 1000
THREADS = 4
MEMORY = 8 << 20
"""Bytes: allocators keep some of what was in use, and processes that ended are known for 30 s more."""


def keys() -> int:
    """The kernel's keys of all users that this process may see."""
    lines = Path("/proc/key-users").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines)


def cycle(server: FaultServer, times: int) -> None:
    """Create and kill, in threads; something runs in every tenth."""

    def work(number: int) -> None:
        client = server.client()
        for turn in range(number, times, THREADS):
            box = client.create()
            if turn // THREADS % 10 == 0:
                box.write("file", b"content")
                box.start("sleep 1000 & exec sleep 1000").close()
            box.kill()

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))  # which raises what a thread did


def test_sandboxes_come_and_go(who: Identity) -> None:
    with FaultServer(who) as server:
        cycle(server, 100)
        before, bytes_before, keys_before = Census.of(server), memory(server), keys()
        cycle(server, TIMES)
        assert server.client().living() == []
        wait_until_as_before(server, before)
        assert memory(server) - bytes_before < MEMORY
        assert keys() - keys_before < TIMES / 10
