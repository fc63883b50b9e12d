"""What is compared, and the bounds that it is held to: our default transport is; gRPC is shown beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sides.place import Sizes

MIB = 1 << 20

SDKS = ("connect", "grpc", "official")
ALL = (*SDKS, "floor")

Measure = Literal["wall", "p99", "rate", "cpu", "extra", "held"]


@dataclass(frozen=True)
class Bound:
    """What a measure of ours is held to.

    Attributes:
        measure: "wall" is the median of wall times, "p99" nearly the longest of them, "rate" the amount of
            work by the median, "cpu" the median of processor time, "extra" the memory in MiB by which the
            process has grown at its peak, "held" the median of the memory at the height of an action.
        limit: The bound.
        against: The side by whose measure ours is divided; ours itself is held to it when empty.
    """

    measure: Measure
    limit: float
    against: str = ""

    @property
    def at_least(self) -> bool:
        """Whether it is a lower one."""
        return self.measure == "rate"

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        return f"{self.measure} {sign} {self.limit:g} {f'x {self.against}' if self.against else 'MiB'}"


@dataclass(frozen=True)
class Row:
    """One thing that is compared.

    Attributes:
        key: Its name on the command line.
        title: Its name in the table.
        action: The method of a side that does it; the programs of `comparison.programs` have none.
        bounds: What it is held to.
        sides: Who does it.
        amount: How much is done in one action, for a rate.
        unit: Of what that much is.
        often: Whether it is short: done in every round, and several times.
    """

    key: str
    title: str
    action: str
    bounds: tuple[Bound, ...] = ()
    sides: tuple[str, ...] = ALL
    amount: int = 1
    unit: str = ""
    often: bool = False

    @property
    def is_of_memory(self) -> bool:
        """Whether what other rows have left in the memory of a process would falsify it."""
        return any(bound.measure in ("extra", "held") for bound in self.bounds)


def official(measure: Measure, limit: float) -> Bound:
    return Bound(measure, limit, "official")


def floor(measure: Measure, limit: float) -> Bound:
    return Bound(measure, limit, "floor")


def rows(sizes: Sizes) -> list[Row]:
    """All rows."""
    small = (official("wall", 0.8), floor("wall", 1.3), official("p99", 0.8), floor("p99", 1.3))
    file = (official("rate", 1.5), floor("rate", 0.8), Bound("extra", 16))
    return [
        Row("import", "import alone", "", (official("wall", 0.1),), ("connect", "official")),
        Row("import-used", "import, `Sandbox` used", "", (official("wall", 0.35),), ("connect", "official")),
        Row("cold", "cold process: start, create, run, read, kill, exit", "", (official("wall", 0.5),), SDKS),
        Row(
            "run",
            'run("true"), warm',
            "run_true",
            (official("wall", 1.0), floor("wall", 1.3)),
            often=True,
        ),
        Row("list", "files.list", "list_files", small, often=True),
        Row("exists", "files.exists", "exists", small, often=True),
        Row(
            "events",
            f"{sizes.events:,} small output events to a callback",
            "events",
            (official("rate", 5), floor("rate", 0.5)),
            amount=sizes.events,
            unit="events",
        ),
        Row(
            "output",
            f"{sizes.output_mib} MiB of output to a callback",
            "long_output",
            (official("rate", 3), floor("rate", 0.6), Bound("extra", 16)),
            amount=sizes.output_mib,
            unit="MiB",
        ),
        Row(
            "file-up",
            f"file of {sizes.file_mib} MiB up",
            "file_up",
            file,
            amount=sizes.file_mib,
            unit="MiB",
        ),
        Row(
            "file-down",
            f"file of {sizes.file_mib} MiB down, streamed",
            "file_down",
            file,
            amount=sizes.file_mib,
            unit="MiB",
        ),
        Row(
            "files-write",
            f"{sizes.files:,} files of 1 KiB written in one call",
            "write_many",
            (official("rate", 2),),
            amount=sizes.files,
            unit="files",
        ),
        Row(
            "files-list",
            f"{sizes.files:,} files listed",
            "list_many",
            (official("rate", 2),),
            amount=sizes.files,
            unit="files",
        ),
        Row(
            "crowd",
            f"{sizes.crowd} background commands at once",
            "crowd",
            (official("wall", 1.0), official("held", 0.7)),
            SDKS,
        ),
        Row("rest", "REST call (get_info)", "get_info", (official("cpu", 1.0),), often=True),
        Row(
            "watch",
            "watch event, change to callback",
            "watch",
            (official("wall", 0.5), floor("wall", 3)),
            (*ALL, "official at leisure"),
        ),
    ]
