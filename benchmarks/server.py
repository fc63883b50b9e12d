"""The embedded server's figures and their bounds, measured on this machine beside floors of the same run.

Needs root, because others may not look at the memory of sandboxes. A figure that does not keep to its bound
makes the exit code 1; on a machine that does other work, look at the ratios to the floors.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from figures import churn, crowd, latency, transfer
from figures.figure import HEADER, Figure

from sandbox_local import LocalServer

SUBJECTS = ("latency", "output", "files", "crowd", "churn")


def measure(subject: str, arguments: argparse.Namespace) -> Iterator[Figure]:
    """The figures of one subject, on a server of its own."""
    with LocalServer() as server:
        options = {
            "api_key": server.api_key,
            "api_url": server.env["E2B_API_URL"],
            "sandbox_url": server.env["E2B_SANDBOX_URL"],
        }
        if subject == "latency":
            yield from latency.measure(options, arguments.rounds)
        elif subject == "output":
            yield from transfer.measure_output(server, arguments.rounds)
        elif subject == "files":
            yield from transfer.measure_files(server, options, arguments.rounds, arguments.file_mib << 20)
        elif subject == "crowd":
            yield from crowd.measure(server, options, arguments.rounds, arguments.crowd)
        else:
            yield from churn.measure(server, options, arguments.cycles)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("subjects", nargs="*", default=SUBJECTS, metavar="SUBJECT", help=", ".join(SUBJECTS))
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each figure (default 5)")
    parser.add_argument("--crowd", type=int, default=300, help="idle sandboxes (default 300)")
    parser.add_argument("--cycles", type=int, default=1000, help="creates and kills (default 1000)")
    parser.add_argument("--file-mib", type=int, default=1024, help="length of the file (default 1024)")
    parser.add_argument("--json", type=Path, help="also write every sample to this file")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.subjects) - set(SUBJECTS))
    if unknown:
        parser.error(f"no such subject: {', '.join(unknown)}; there are {', '.join(SUBJECTS)}")
    if os.geteuid() != 0:
        parser.error("needs root, because others may not look at the memory of sandboxes")

    figures: list[Figure] = []
    print(HEADER)
    for subject in arguments.subjects:
        for figure in measure(subject, arguments):
            figures.append(figure)
            print(figure.row(), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([vars(figure) for figure in figures]))
    sys.exit(not all(figure.holds for figure in figures))


if __name__ == "__main__":
    main()
