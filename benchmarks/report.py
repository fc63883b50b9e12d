"""Writes docs/performance.md from what comparisons and a measurement of growth have written as JSON.

Only what stands between the markers is written anew; all else there is written by hand. Values are medians of
the runs, with their range behind them; a bound holds if it does in each run.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from comparison.plots import draw
from comparison.results import time_text

_DOCS = Path(__file__).resolve().parent.parent / "docs"


def bounds(runs: list[dict[str, Any]]) -> Iterator[str]:
    """The table of all bounds."""
    yield "| what | bound | Connect | gRPC | holds |"
    yield "|---|---|---|---|---|"
    for rows in _same_rows(runs):
        for number, bound in enumerate(rows[0]["bounds"]):
            told = [row["bounds"][number] for row in rows]
            values = [
                _range([each["values"][side] for each in told if side in each["values"]])
                for side in ("connect", "grpc")
            ]
            held = sum(each["holds"] for each in told)
            verdict = "yes" if held == len(told) else f"**no** ({held} of {len(told)})" if held else "**no**"
            title = rows[0]["title"] if number == 0 else ""
            yield f"| {title} | {bound['bound']} | {values[0]} | {values[1]} | {verdict} |"


def figures(runs: list[dict[str, Any]]) -> Iterator[str]:
    """The table of what was measured of each side."""
    yield "| what | side | median | p99 | CPU | peak memory, MiB | extra memory, MiB |"
    yield "|---|---|---|---|---|---|---|"
    for rows in _same_rows(runs):
        for number, side in enumerate(rows[0]["sides"]):
            told = [row["sides"][side] for row in rows if "failure" not in row["sides"][side]]
            if not told:
                yield f"| {rows[0]['title'] if number == 0 else ''} | {side} | **failed** | | | | |"
                continue

            def middle(key: str, told: list[dict[str, Any]] = told) -> float:
                return float(statistics.median(each[key] for each in told))

            rate = rows[0]["unit"]
            memory = f"{middle('extra_mib'):.1f}" if "extra_mib" in told[0] else ""
            if "held_mib" in told[0]:
                memory = f"{middle('held_mib'):.1f} held, {middle('threads'):.0f} threads"
            cells = (
                rows[0]["title"] if number == 0 else "",
                side,
                f"{middle('rate'):,.0f} {rate}/s" if rate else time_text(middle("median_s")),
                time_text(middle("p99_s")),
                time_text(middle("cpu_s")),
                f"{middle('peak_mib'):.0f}",
                memory,
            )
            yield f"| {' | '.join(cells)} |"


def growth(run: dict[str, Any]) -> Iterator[str]:
    """The table and the pictures of growth."""
    yield "| axis | side | largest growth of the cost of one, from a point to the next |"
    yield "|---|---|---|"
    for axis in run["axes"]:
        for line in axis["lines"]:
            yield f"| {axis['title']}, {line['action']} | {line['side']} | {line['worst_step']:.2f} |"
    for axis in run["axes"]:
        picture = draw(axis, _DOCS / "performance")
        yield f"\n![{axis['title']}]({picture.relative_to(_DOCS)})"


def profiles(run: dict[str, Any]) -> Iterator[str]:
    """The tables of which process and which function takes the time."""
    yield "| what | side | wall | client | client, in the kernel | server | sandbox |"
    yield "|---|---|---|---|---|---|---|"
    for one in run["profiles"]:
        title = one["title"] if one["side"] == run["profiles"][0]["side"] else ""
        times = [time_text(one[name]) for name in ("wall", "user", "system", "server", "sandbox")]
        yield f"| {' | '.join((title, one['side'], *times))} |"
    yield "\n| what | where our client's own thread spends its processor time |"
    yield "|---|---|"
    for one in run["profiles"]:
        if one["functions"]:
            told = ", ".join(f"{share:.0%} `{name}`" for name, share in one["functions"])
            yield f"| {one['title']} | {told} |"


def machines(runs: list[dict[str, Any]]) -> Iterator[str]:
    """Where and when the runs were."""
    for run in runs:
        told = run["machine"]
        packages = ", ".join(f"{name} {number}" for name, number in told["packages"].items())
        yield (
            f"- {told['at']}: {told['cores']} cores, {told['system']}, Python {told['python']}, load "
            f"{told['load']}, {run['rounds']} rounds; {packages}"
        )


def filled(text: str, name: str, lines: Iterator[str]) -> str:
    """A document with other content between two of its markers.

    Raises:
        ValueError: It does not have them.
    """
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    content = "\n".join(lines)
    found, count = pattern.subn(lambda marks: f"{marks[1]}\n{content}\n\n{marks[2]}", text)
    if count != 1:
        raise ValueError(f"there have to be one <!-- {name} --> and an <!-- end --> after it")
    return found


def _same_rows(runs: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for row in runs[0]["rows"]:
        yield [other for run in runs for other in run["rows"] if other["key"] == row["key"]]


def _range(values: list[float]) -> str:
    if not values:
        return ""
    middle = f"{statistics.median(values):.3g}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.3g} to {max(values):.3g})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, help="files written by comparisons, growth and profiles"
    )
    parser.add_argument("--document", type=Path, default=_DOCS / "performance.md")
    arguments = parser.parse_args()
    told = [json.loads(path.read_text()) for path in arguments.runs]
    comparisons = [run for run in told if "rows" in run]
    text = arguments.document.read_text()
    if comparisons:
        text = filled(text, "runs", machines(comparisons))
        text = filled(text, "bounds", bounds(comparisons))
        text = filled(text, "figures", figures(comparisons))
    for run in told:
        if "axes" in run:
            text = filled(text, "growth", growth(run))
        if "profiles" in run:
            text = filled(text, "profiles", profiles(run))
    arguments.document.write_text(text)
    print(f"Written to {arguments.document}")


if __name__ == "__main__":
    main()
