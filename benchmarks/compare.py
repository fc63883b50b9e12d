"""Our SDK on each transport, the official one and a floor of raw sockets, on one embedded server in one run.

Each side is a process of its own, so that its memory, processor time and threads are its own; and rounds are
interleaved, so that a machine whose speed drifts is the same one for everyone. Quote the ratios. Only the row
of small events has another server: see sides/standin.py. A bound that the default transport does not keep to
makes the exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from comparison import programs
from comparison.results import HEADER, Result, lines, summary
from comparison.rows import Row, rows
from comparison.workers import SideFailed, Worker, servers, workers
from sides.place import TINY, Place, Sizes

RUNS = Path(__file__).resolve().parent.parent / "build" / "bench"


class Turns(NamedTuple):
    """How often everything is done, and how much of it.

    Attributes:
        rounds: Rounds of short rows; long ones have a sixth of it.
        warm_up: Rounds before, in which everyone gets warm, and which do not count.
        sizes: How much is done in a round.
    """

    rounds: int
    warm_up: int
    sizes: Sizes


def measure(row: Row, turns: Turns, place: Place, crew: dict[str, Worker]) -> dict[str, Result]:
    """Let the sides of a row take turns; one that fails takes no more."""
    results = {side: Result(row) for side in row.sides}
    sides = list(row.sides)
    rounds = turns.rounds if row.often else max(1, turns.rounds // 6)
    for turn in range(-turns.warm_up, rounds):
        for side in [side for side in sides if not results[side].failure]:
            try:
                if row.action:
                    sample = crew[side].do(row.action, turns.sizes.calls if row.often else 1)
                else:
                    sample = programs.run_once(row.key, side, place)
            except SideFailed as failure:
                results[side].failure = str(failure)
                print(f"{row.key}: {failure}", file=sys.stderr)
                continue
            if not results[side].first:
                results[side].first = sample["before"]
            if turn >= 0:
                results[side].samples.append(sample)
        sides.append(sides.pop(0))  # nobody is always the one after the same other
    return results


def run(chosen: list[Row], turns: Turns) -> Iterator[dict[str, Any]]:
    """The rows, one after the other, as JSON."""
    shared = [row for row in chosen if row.action and (turns.sizes == TINY or not row.is_of_memory)]
    names = list(dict.fromkeys(side for row in shared for side in row.sides))
    with servers(turns.sizes) as place, workers(names, place, turns.sizes) as crew:
        for row in chosen:
            if row in shared or not row.action:
                yield summary(row, measure(row, turns, place, crew))
                continue
            with workers(list(row.sides), place, turns.sizes) as fresh:
                yield summary(row, measure(row, turns, place, fresh))


def machine() -> dict[str, Any]:
    """Where and when a run was, and of what."""
    packages = ("e2b", "grpcio", "protobuf", "pydantic", "requests", "sandbox-sync", "urllib3")
    return {
        "at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "load": round(os.getloadavg()[0], 2),
    }


def keep(told: dict[str, Any], file: Path | None, name: str) -> None:
    """Write results to a file, or to one of this name and the date, and say where they are."""
    file = file or RUNS / f"{name}-{datetime.now():%Y%m%d-%H%M%S}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(told) + "\n")
    print(f"\nWritten to {file}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(row.key for row in rows(Sizes())))
    parser.add_argument(
        "--rounds",
        type=int,
        default=30,
        help="rounds of short rows, six times those of long ones (default 30)",
    )
    parser.add_argument("--tiny", action="store_true", help="do very little: for looking whether it works")
    parser.add_argument(
        "--json", type=Path, help="where to write the results (default: build/bench/DATE.json)"
    )
    arguments = parser.parse_args()
    sizes = TINY if arguments.tiny else Sizes()
    every = rows(sizes)
    unknown = sorted(set(arguments.rows) - {row.key for row in every})
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}")
    chosen = [row for row in every if not arguments.rows or row.key in arguments.rows]

    told: dict[str, Any] = {"machine": machine(), "sizes": sizes.as_json(), "rounds": arguments.rounds}
    told["rows"] = []
    print(HEADER, flush=True)
    for row in run(chosen, Turns(arguments.rounds, 0 if arguments.tiny else 1, sizes)):
        told["rows"].append(row)
        print("\n".join(lines(row)), flush=True)
    keep(told, arguments.json, "compare")
    sys.exit(not all(bound["holds"] for row in told["rows"] for bound in row["bounds"]))


if __name__ == "__main__":
    main()
