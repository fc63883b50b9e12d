"""Where the time of what is compared goes: how much each process works, and which functions of the client.

The processor time of all threads of the client, of the server, and of all that belongs to sandboxes, with
what the kernel does for them. Less than the wall time is waiting; more is work side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from compare import RUNS, machine
from comparison.rows import rows
from comparison.workers import SideFailed, Worker
from figures.memory import processes
from sides.place import TINY, Place, Sizes

from sandbox_local import LocalServer

KEYS = ("list", "exists", "file-up", "file-down", "files-write", "files-list", "crowd", "watch")
"""The rows that are looked into."""

_SIDES = ("connect", "official", "floor")
_OFTEN = 100  # repetitions of what is short
_TICK = os.sysconf("SC_CLK_TCK")


class Spent(NamedTuple):
    """Seconds of processor time so far: the client's by itself and in the kernel, and all of the others'."""

    user: float
    system: float
    server: float
    sandbox: float


def measure(sizes: Sizes, keys: tuple[str, ...], rounds: int) -> Iterator[dict[str, Any]]:
    """What an action of each row costs each process, for each side."""
    with LocalServer() as server, ExitStack() as stack:
        place = Place(server.url, server.api_key)
        crew = {side: stack.enter_context(Worker(side, place, sizes)) for side in _SIDES}
        for row in rows(sizes):
            if row.key not in keys:
                continue
            times = _OFTEN if row.often else 1
            for side in _SIDES:
                if side not in row.sides:
                    continue
                worker = crew[side]
                worker.do(row.action)
                before, walls = _spent(server.pid, worker.pid), []
                for _ in range(rounds):
                    walls += worker.do(row.action, times)["seconds"]
                after = _spent(server.pid, worker.pid)
                each = [(now - then) / (rounds * times) for now, then in zip(after, before, strict=True)]
                told = {"key": row.key, "title": row.title, "side": side, "wall": statistics.median(walls)}
                functions = worker.functions(row.action, times) if side == "connect" else []
                yield {**told, **Spent(*each)._asdict(), "functions": functions}


def _spent(server: int, client: int) -> Spent:
    found = processes(server)
    user, system, _ = _times(client)
    return Spent(
        user, system, sum(_times(server)[:2]), sum(sum(_times(pid)) for pid in (*found.zygote, *found.boxes))
    )


def _times(pid: int) -> tuple[float, float, float]:
    """What a process has spent in its code, and in the kernel; and its children that have ended in both."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0, 0.0, 0.0  # it has ended, so its parent's count has it
    user, system, user_of_children, system_of_children = (int(field) / _TICK for field in fields[11:15])
    return user, system, user_of_children + system_of_children


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(KEYS))
    parser.add_argument(
        "--rounds", type=int, default=5, help="actions of each row, of short ones each a hundred (default 5)"
    )
    parser.add_argument("--tiny", action="store_true", help="do very little: for looking whether it works")
    parser.add_argument("--json", type=Path, help="file for the results (default: build/bench/DATE.json)")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.rows) - set(KEYS)):
        parser.error(f"no such row: {', '.join(unknown)}")

    told: dict[str, Any] = {"machine": machine(), "rounds": arguments.rounds, "profiles": []}
    sizes = TINY if arguments.tiny else Sizes()
    for one in measure(sizes, tuple(arguments.rows) or KEYS, arguments.rounds):
        told["profiles"].append(one)
        times = ", ".join(f"{name} {one[name] * 1000:.3g}" for name in ("wall", *Spent._fields))
        print(f"{one['title']}, {one['side']}, ms: {times}", flush=True)
        for name, share in one["functions"]:
            print(f"    {share:.0%} {name}")
    file = arguments.json or RUNS / f"profiles-{datetime.now():%Y%m%d-%H%M%S}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(told) + "\n")
    print(f"\nWritten to {file}")


if __name__ == "__main__":
    try:
        main()
    except SideFailed as error:
        raise SystemExit(str(error)) from None
