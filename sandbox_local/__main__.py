"""The command line, `sandbox_local` or `python -m sandbox_local`."""

from __future__ import annotations

import argparse
import sys

from sandbox_local.cli import doctor, forward, serve, template


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="sandbox_local")
    commands = parser.add_subparsers(required=True, metavar="command")
    serve.add(commands)
    template.add(commands)
    doctor.add(commands)
    forward.add(commands)
    options = parser.parse_args(arguments)
    code: int = options.run(options)
    return code


if __name__ == "__main__":
    sys.exit(main())
