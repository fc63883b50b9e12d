"""`sandbox_local doctor`: what this machine offers, and what to do for more."""

from __future__ import annotations

import argparse
import asyncio
import json

from sandbox_local.server import EXIT_NO_ISOLATION


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "doctor",
        help="say what isolation this machine offers, and what to install or set for more",
        description="Makes sandboxes, looks around in them, and reports what holds and what does not. "
        f"Exits with 0 if sandboxes can be made and hold, and with {EXIT_NO_ISOLATION} if not.",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from sandbox_local.doctor.examine import examine  # not for --help

    report = asyncio.run(examine())
    print(json.dumps(report.as_dict(), indent=2) if options.json else report.as_text(), end="")
    return 0 if report.sound else EXIT_NO_ISOLATION
