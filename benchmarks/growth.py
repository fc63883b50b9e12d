"""How cost grows: with the sandboxes that are listed, with commands followed at once, with the size of files.

Nothing may cost more than in proportion: the last column of the table is the largest factor by which the cost
of one more has grown from one point of an axis to the next, and a cliff shows there.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from compare import keep, machine
from comparison.rows import MIB, SDKS
from comparison.workers import Worker, servers, workers
from sides.place import Sizes
from sides.sdk import LISTED
from sides.usage import Sample

from sandbox_sync import Sandbox


class Axis(NamedTuple):
    """What grows.

    Attributes:
        key: Its name on the command line.
        title: What is counted along it.
        points: The counts.
        tiny: Counts for looking whether it works.
        actions: What is measured at each.
    """

    key: str
    title: str
    points: tuple[int, ...]
    tiny: tuple[int, ...]
    actions: tuple[str, ...]


AXES = (
    Axis("sandboxes", "sandboxes listed", (1, 10, 100, 1000), (4, 5), ("list_sandboxes",)),
    Axis("handles", "background commands at once", (1, 10, 50, 100, 250, 500), (1, 3), ("crowd",)),
    Axis(
        "file",
        "KiB of a file",
        (1, 16, 256, 4 << 10, 64 << 10, 1 << 20),
        (1, 64),
        ("file_up", "file_down"),
    ),
)


def measure(axis: Axis, points: tuple[int, ...], rounds: int) -> Iterator[dict[str, Any]]:
    """The points of an axis for each action and side; rounds are interleaved as in a comparison."""
    sizes = Sizes(events=1, files=1)
    with servers(sizes) as place, workers(list(SDKS), place, sizes) as crew:
        told: dict[tuple[str, str], list[dict[str, Any]]] = {}
        made: list[Sandbox] = []  # they end with the server
        for count in points:
            while axis.key == "sandboxes" and len(made) < count:
                made.append(Sandbox.create(timeout=3600, metadata=LISTED, **place.options()))
            size = replace(sizes, crowd=count, sandboxes=count, file_kib=count if axis.key == "file" else 0)
            for action in axis.actions:
                for side, samples in _rounds(crew, action, size, rounds).items():
                    point = {
                        "count": count,
                        "median_s": statistics.median(sample["seconds"][0] for sample in samples),
                        "cpu_s": statistics.median(sample["cpu"] for sample in samples),
                        "extra_mib": max(sample["peak"] for sample in samples) / MIB
                        - samples[0]["before"] / MIB,
                    }
                    if "threads" in samples[0]:
                        point["held_mib"] = statistics.median(sample["held"] for sample in samples) / MIB
                        point["threads"] = max(sample["threads"] for sample in samples)
                    told.setdefault((action, side), []).append(point)
    for (action, side), line in told.items():
        yield {"action": action, "side": side, "points": line, "worst_step": worst_step(line)}


def _rounds(crew: dict[str, Worker], action: str, sizes: Sizes, rounds: int) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {side: [] for side in crew}
    for _ in range(rounds):
        for side, worker in crew.items():
            samples[side].append(worker.do(action, sizes=sizes))
    return samples


def worst_step(points: list[dict[str, Any]]) -> float:
    """The largest factor by which the cost of one has grown from a point to the next."""
    each = [point["median_s"] / point["count"] for point in points]
    return max((late / early for early, late in itertools.pairwise(each)), default=1.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    keys = [axis.key for axis in AXES]
    parser.add_argument("axes", nargs="*", metavar="AXIS", help=", ".join(keys))
    parser.add_argument("--rounds", type=int, default=5, help="rounds at each point (default 5)")
    parser.add_argument("--tiny", action="store_true", help="do very little: for looking whether it works")
    parser.add_argument("--json", type=Path, help="file for the results (default: build/bench/DATE.json)")
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.axes) - set(keys)):
        parser.error(f"no such axis: {', '.join(unknown)}")

    told: dict[str, Any] = {"machine": machine(), "rounds": arguments.rounds, "axes": []}
    print("| axis | side | medians, ms | worst step |\n|---|---|---|---|", flush=True)
    for axis in AXES:
        if arguments.axes and axis.key not in arguments.axes:
            continue
        lines = list(measure(axis, axis.tiny if arguments.tiny else axis.points, arguments.rounds))
        told["axes"].append({"key": axis.key, "title": axis.title, "lines": lines})
        for line in lines:
            medians = ", ".join(
                f"{point['count']:,}: {point['median_s'] * 1000:.3g}" for point in line["points"]
            )
            print(
                f"| {axis.title}, {line['action']} | {line['side']} | {medians} | {line['worst_step']:.2f} |"
            )
    keep(told, arguments.json, "growth")


if __name__ == "__main__":
    main()
