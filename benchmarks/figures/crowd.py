"""What hundreds of idle sandboxes cost, and whether a command feels them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from figures import memory
from figures.figure import Figure, milliseconds
from sandbox_local import LocalServer
from sandbox_sync import Sandbox

_MIB = 1 << 20


def measure(server: LocalServer, options: dict[str, Any], rounds: int, count: int) -> Iterator[Figure]:
    """Memory for each of `count` sandboxes that have run one command; and a command in the first and last."""
    first = Sandbox.create(timeout=3600, **options)
    first.commands.run("true")
    memory.settle()
    before = _Cost(server)
    alone = [milliseconds(lambda: first.commands.run("true")) for _ in range(rounds * 4)]
    others = []
    for _ in range(count):
        others.append(Sandbox.create(timeout=3600, **options))
        others[-1].commands.run("true")
    memory.settle()
    after = _Cost(server)
    pss = [(now - then) / count / _MIB for now, then in zip(after.pss, before.pss, strict=True)]
    kernel = {name: (after.machine[name] - before.machine[name]) / count / _MIB for name in before.machine}
    shares = f"server {pss[0]:+.2f}, zygote {pss[1]:+.2f}, sandboxes {pss[2]:+.2f}"
    yield Figure(f"PSS of one of {count} idle sandboxes", "MiB", [sum(pss)], 2.5, note=shares)
    told = ", ".join(f"{name} {kernel[name]:+.2f}" for name in ("Slab", "PageTables", "KernelStack", "Shmem"))
    yield Figure(
        "memory gone from the machine for each", "MiB", [-kernel["MemAvailable"]], note=f"cross check; {told}"
    )
    early, late = [], []
    for _ in range(rounds * 4):
        early.append(milliseconds(lambda: first.commands.run("true")))
        late.append(milliseconds(lambda: others[-1].commands.run("true")))
    ratio = statistics.median(late) / statistics.median(early)
    times = f"{statistics.median(late):.2f} by {statistics.median(early):.2f} ms"
    alone_ms = f"{statistics.median(alone):.2f} ms while the first was alone"
    name = f"a command in the last of {count}, by one in the first"
    yield Figure(name, "ratio", [ratio], 2, note=f"{times}; {alone_ms}")
    for sandbox in (first, *others):
        sandbox.kill()


class _Cost:
    """Memory in use: of the server, the zygote and all sandboxes, and of the machine."""

    def __init__(self, server: LocalServer) -> None:
        self.pss = [memory.pss(pids) for pids in memory.processes(server.pid)]
        self.machine = memory.machine()
