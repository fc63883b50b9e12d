"""Whether two servers answer alike, or one as the contract says.

usage: python -m tests.fidelity URL_A [URL_B]

A URL is that of the control plane; where sandboxes are reached at another, that follows after a comma. The
API keys are read from E2B_API_KEY_A and E2B_API_KEY_B, or from E2B_API_KEY. With one URL its answers are
compared with what the script expects. The exit code is 1 if there is a difference.
"""

from __future__ import annotations

import argparse
import os
import sys

from tests.fidelity.compare import rounds
from tests.fidelity.player import Player
from tests.fidelity.step import load


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.fidelity", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("url", nargs="+", metavar="URL", help="API_URL or API_URL,SANDBOX_URL")
    parser.add_argument("--only", action="append", default=[], metavar="FILE", help="a file of the script")
    options = parser.parse_args(arguments)
    if len(options.url) > 2:
        parser.error("two servers at most")
    players = [_player(url, letter) for url, letter in zip(options.url, "AB", strict=False)]
    steps = load(options.only)
    count = 0
    try:
        for each in rounds(steps, players):
            found = each.difference() if len(players) == 2 else each.breach()
            if found is not None:
                count += 1
                print(found, flush=True)  # noqa: T201
    finally:
        for player in players:
            player.close()
    print(f"{len(steps)} steps, {count} with a difference")  # noqa: T201
    return 1 if count else 0


def _player(url: str, letter: str) -> Player:
    api, _, sandboxes = url.partition(",")
    key = os.environ.get(f"E2B_API_KEY_{letter}") or os.environ.get("E2B_API_KEY")
    if not key:
        raise SystemExit(f"set E2B_API_KEY_{letter} to the API key of {api}")
    return Player(api, key, sandboxes or None)


if __name__ == "__main__":
    sys.exit(main())
