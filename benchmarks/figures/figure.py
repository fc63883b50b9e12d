"""One measured figure and what it is held to."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """A figure.

    Attributes:
        name: What was measured.
        unit: Of samples, bound and floor.
        samples: What came out, round by round; the figure is their median.
        bound: What it is held to, or None.
        at_least: Whether the bound is a lower one.
        floor: The same with nothing of ours in it, measured in the same rounds.
        note: What else there is to say.
    """

    name: str
    unit: str
    samples: list[float]
    bound: float | None = None
    at_least: bool = False
    floor: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def value(self) -> float:
        return statistics.median(self.samples)

    @property
    def holds(self) -> bool:
        """Whether it keeps to its bound."""
        if self.bound is None:
            return True
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def row(self) -> str:
        """A row of a table in Markdown."""
        sign = "" if self.bound is None else f"{'>=' if self.at_least else '<='} {self.bound:g}"
        floor = ratio = ""
        if self.floor:
            median = statistics.median(self.floor)
            floor, ratio = f"{median:.4g}", f"{self.value / median:.2f}"
        spread = f"{min(self.samples):.4g} to {max(self.samples):.4g}"
        verdict = "" if self.bound is None else "yes" if self.holds else "**no**"
        cells = (
            f"{self.name}, {self.unit}",
            f"{self.value:.4g}",
            spread,
            sign,
            verdict,
            floor,
            ratio,
            self.note,
        )
        return f"| {' | '.join(cells)} |"


HEADER = """\
| figure | median | range | bound | holds | floor | figure / floor | |
|---|---|---|---|---|---|---|---|"""


def milliseconds(action: Callable[[], object]) -> float:
    """How long something takes."""
    start = time.perf_counter()
    action()
    return (time.perf_counter() - start) * 1000


def throughput(size: int, action: Callable[[], object]) -> float:
    """How many MiB a second something moves that moves `size` bytes."""
    return size / (1 << 20) / milliseconds(action) * 1000
