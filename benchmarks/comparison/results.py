"""What came out of a run, as numbers, as JSON and as a table in Markdown."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any

from sides.usage import Sample

from comparison.rows import MIB, Bound, Measure, Row

HELD_TO = "connect"
"""The side of ours that is held to the bounds: what users get who choose nothing."""


@dataclass
class Result:
    """The samples of one side in one row.

    Attributes:
        row: The row.
        samples: One for each round that counts.
        failure: Why there are no more of them, if the side failed.
        first: Resident memory before the side did this for the first time, in bytes.
    """

    row: Row
    samples: list[Sample] = field(default_factory=list)
    failure: str = ""
    first: int = 0

    @property
    def seconds(self) -> list[float]:
        return [each for sample in self.samples for each in sample["seconds"]]

    def measure(self, name: Measure) -> float:
        """One of the measures that bounds are for."""
        if name == "p99":
            ordered = sorted(self.seconds)
            return ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
        if name == "cpu":
            return statistics.median(sample["cpu"] / len(sample["seconds"]) for sample in self.samples)
        if name == "extra":
            return max(self.peak - self.first / MIB, 0.0)
        if name == "held":
            return statistics.median(sample["held"] for sample in self.samples) / MIB
        wall = statistics.median(self.seconds)
        return self.row.amount / wall if name == "rate" else wall

    @property
    def peak(self) -> float:
        """The most memory that the process had meanwhile, in MiB."""
        return max(sample["peak"] for sample in self.samples) / MIB

    def as_json(self) -> dict[str, Any]:
        if self.failure:
            return {"failure": self.failure}
        told = {
            "median_s": self.measure("wall"),
            "p99_s": self.measure("p99"),
            "cpu_s": self.measure("cpu"),
            "peak_mib": self.peak,
            "samples_s": self.seconds,
        }
        if self.row.action:  # else all of it is extra
            told["extra_mib"] = self.measure("extra")
        if self.row.unit:
            told["rate"] = self.measure("rate")
        if all("held" in sample for sample in self.samples):
            told["held_mib"] = self.measure("held")
            told["threads"] = max(sample["threads"] for sample in self.samples)
        return {name: _short(value) for name, value in told.items()}


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return [_short(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def summary(row: Row, results: dict[str, Result]) -> dict[str, Any]:
    """A row as JSON, with its verdicts."""
    return {
        "key": row.key,
        "title": row.title,
        "unit": row.unit,
        "amount": row.amount,
        "sides": {side: result.as_json() for side, result in results.items()},
        "bounds": [_verdict(bound, results) for bound in row.bounds],
    }


def _verdict(bound: Bound, results: dict[str, Result]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for side in ("connect", "grpc"):
        other = results.get(bound.against)
        if side in results and not results[side].failure and not (other and other.failure):
            value = results[side].measure(bound.measure)
            if bound.against:
                # Of very little memory the kernel may say that it is none.
                value /= results[bound.against].measure(bound.measure) or 1e-9
            values[side] = _short(value)
    ours = values.get(HELD_TO)
    holds = ours is not None and (ours >= bound.limit if bound.at_least else ours <= bound.limit)
    return {**asdict(bound), "bound": str(bound), "values": values, "holds": holds}


HEADER = """\
| what | side | median | p99 | CPU | peak MiB | extra MiB | by official | by floor |
|---|---|---|---|---|---|---|---|---|"""


def lines(row: dict[str, Any]) -> list[str]:
    """The lines of a table for a row of JSON: one for each side, then one for each bound."""
    sides = row["sides"]
    told: list[str] = []
    for name, side in sides.items():
        if "failure" in side:
            told.append(f"| {row['title'] if not told else ''} | {name} | **failed** | | | | | | |")
            continue
        cells = [
            row["title"] if not told else "",
            name,
            f"{side['rate']:,.0f} {row['unit']}/s" if row["unit"] else time_text(side["median_s"]),
            time_text(side["p99_s"]),
            time_text(side["cpu_s"]),
            f"{side['peak_mib']:.0f}",
            _memory(side),
            *(_by(side, sides.get(other), bool(row["unit"])) for other in ("official", "floor")),
        ]
        told.append(f"| {' | '.join(cells)} |")
    for bound in row["bounds"]:
        values = ", ".join(f"{side} {value:.3g}" for side, value in bound["values"].items())
        verdict = "holds" if bound["holds"] else "**is missed**"
        told.append(f"| | *{bound['bound']}* {verdict}: {values} | | | | | | | |")
    return told


def _by(side: dict[str, Any], other: dict[str, Any] | None, is_rate: bool) -> str:
    if other is None or "failure" in other:
        return ""
    ratio = other["median_s"] / side["median_s"] if is_rate else side["median_s"] / other["median_s"]
    return f"{ratio:.2f}"


def _memory(side: dict[str, Any]) -> str:
    if "held_mib" in side:
        return f"{side['held_mib']:.1f} held, {side['threads']} threads"
    return f"{side['extra_mib']:.1f}" if "extra_mib" in side else ""


def time_text(seconds: float) -> str:
    """Seconds in the unit that fits."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.0f} us"
