"""Where the time of what is compared goes: how much each process works, and which functions of the client.

Where all processes together work less than the wall time says, somebody waits; where more, they work side by
side.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from compare import keep, machine
from comparison.rows import rows
from comparison.workers import SideFailed, Worker
from figures.memory import processes
from sides.place import TINY, Place, Sizes

from sandbox_local import LocalServer

KEYS = ("list", "exists", "file-up", "file-down", "files-write", "files-list", "crowd", "watch")
"""The rows that are looked into."""

_SIDES = ("connect", "official", "floor")  # the functions of the first are told
_OFTEN = 100  # repetitions of what is short
_TICK = os.sysconf("SC_CLK_TCK")


class Cost(NamedTuple):
    """Seconds that one action takes.

    Attributes:
        wall: From its beginning to its end; of a watch, from a change to its news.
        user: Processor time of the client's own code and all that it calls.
        system: The same of the kernel on its behalf.
        server: The same of the server, in both.
        sandbox: The same of all processes of the sandbox.
    """

    wall: float
    user: float
    system: float
    server: float
    sandbox: float


def measure(sizes: Sizes, keys: tuple[str, ...], rounds: int) -> Iterator[dict[str, Any]]:
    """What an action of each row costs each process, for each side."""
    with LocalServer() as server, ExitStack() as stack:
        assert server.pid is not None
        place = Place(server.url, server.api_key)
        crew = {side: stack.enter_context(Worker(side, place, sizes)) for side in _SIDES}
        for row in rows(sizes):
            if row.key not in keys:
                continue
            times = _OFTEN if row.often else 1
            for side in (side for side in _SIDES if side in row.sides):
                cost = _cost(row.action, crew[side], server.pid, rounds, times)
                functions = crew[side].functions(row.action, times) if side == _SIDES[0] else []
                told = {"key": row.key, "title": row.title, "side": side, "functions": functions}
                yield {**told, **cost._asdict()}


def _cost(action: str, worker: Worker, server: int, rounds: int, times: int) -> Cost:
    worker.do(action)  # it is warm from then on
    before = _spent(server)
    samples = [worker.do(action, times) for _ in range(rounds)]
    after = _spent(server)
    count = rounds * times
    kernel = sum(sample["kernel"] for sample in samples)
    return Cost(
        statistics.median(seconds for sample in samples for seconds in sample["seconds"]),
        (sum(sample["cpu"] for sample in samples) - kernel) / count,
        kernel / count,
        (after[0] - before[0]) / count,
        (after[1] - before[1]) / count,
    )


def _spent(server: int) -> tuple[float, float]:
    """Seconds of processor time so far: of the server, and of all that it has started."""
    found = processes(server)
    below = sum(sum(_times(pid)) for pid in (*found.zygote, *found.boxes))
    return _times(server)[0], below


def _times(pid: int) -> tuple[float, float]:
    """What a process has spent, and its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0, 0.0  # it has ended; who waited for it has its time
    user, system, user_of_children, system_of_children = (int(field) / _TICK for field in fields[11:15])
    return user + system, user_of_children + system_of_children


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
        times = ", ".join(f"{name} {one[name] * 1000:.3g}" for name in Cost._fields)
        print(f"{one['title']}, {one['side']}, ms: {times}", flush=True)
        for name, share in one["functions"]:
            print(f"    {share:.0%} {name}")
    keep(told, arguments.json, "profiles")


if __name__ == "__main__":
    try:
        main()
    except SideFailed as error:
        raise SystemExit(str(error)) from None
