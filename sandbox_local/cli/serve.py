"""`sandbox_local serve`: run the embedded server."""

from __future__ import annotations

import argparse
import asyncio
import logging
import re
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from sandbox_local.cli.sizes import size
from sandbox_local.cli.template import add_store
from sandbox_local.config import MOST_SANDBOXES, Config, new_api_key
from sandbox_local.isolation.base import Limits
from sandbox_local.isolation.errors import IsolationError
from sandbox_local.server import EXIT_NO_ISOLATION
from sandbox_local.statefile import StateFileHeld
from sandbox_local.templates.store import TemplateError

_EPILOG = """\
The API key is made anew at each start unless --api-key-file gives one. E2B_API_KEY of the environment is not
used: it may be the key of an account elsewhere.
"""

_MEMORY = "memory such as 512M or 2G, files included (default: half of the machine's, at most 8G)"
_DISK = "files, which lie in memory (default: half of --memory, at most 4G; at most three quarters of it)"
_PROCESSES = "processes and threads of all commands (default: 4096)"

_EXIT_USAGE = 2  # as of argparse


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "serve",
        help="run the server until SIGTERM or Ctrl-C",
        epilog=_EPILOG,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on (default: any free one)")
    parser.add_argument(
        "--print-env", action="store_true", help="when ready, print the variables that clients need"
    )
    parser.add_argument(
        "--api-key-file", type=_key_file, dest="api_key", metavar="PATH", help="file that holds the API key"
    )
    parser.add_argument(
        "--state-file",
        type=Path,
        metavar="PATH",
        help="when ready, write url, api_key, pid and version there as JSON",
    )
    parser.add_argument(
        "--idle-exit", type=float, metavar="SECONDS", help="end after so long without a sandbox and a request"
    )
    parser.add_argument(
        "--internet", action="store_true", help="give sandboxes a network, as their rules allow it"
    )
    add_store(parser)
    parser.add_argument(
        "--isolation",
        choices=("namespaces", "gvisor"),
        default="namespaces",
        help="whose kernel commands run on: this machine's (default) or gVisor's, which needs `runsc`",
    )
    parser.add_argument(
        "--sandboxes",
        type=int,
        default=MOST_SANDBOXES,
        metavar="N",
        help=f"how many may live at once (default: {MOST_SANDBOXES})",
    )
    parser.add_argument("--lifeline", type=int, metavar="FD", help="end when this descriptor does")
    limits = parser.add_argument_group("what each sandbox may use")
    limits.add_argument("--memory", type=size, metavar="SIZE", help=_MEMORY)
    limits.add_argument("--disk", type=size, metavar="SIZE", help=_DISK)
    limits.add_argument("--processes", type=int, metavar="N", help=_PROCESSES)
    limits.add_argument(
        "--cpus", type=float, metavar="N", help="time of so many processors (default: of all)"
    )
    parser.set_defaults(run=_run)


def _limits(options: argparse.Namespace) -> Limits:
    asked = {
        "memory_bytes": options.memory,
        "disk_bytes": options.disk,
        "processes": options.processes,
        "cpus": options.cpus,
    }
    return Limits(**{name: value for name, value in asked.items() if value is not None})


def _run(options: argparse.Namespace) -> int:
    try:
        limits = _limits(options)
        if options.sandboxes < 1:
            raise ValueError(f"--sandboxes has to be 1 or more; got {options.sandboxes}")
    except ValueError as error:
        print(error, file=sys.stderr)
        return _EXIT_USAGE
    config = Config(
        host=options.host,
        port=options.port,
        api_key=options.api_key or new_api_key(),
        print_env=options.print_env,
        state_file=options.state_file,
        idle_exit=options.idle_exit,
        lifeline=options.lifeline,
        isolation=options.isolation,
        sandboxes=options.sandboxes,
        limits=limits,
        internet=options.internet,
        templates=options.templates,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
    from sandbox_local.serve import serve  # not for --help, nor before the logging is set up

    def print_env(url: str) -> None:
        print(f"E2B_API_URL={url}\nE2B_SANDBOX_URL={url}\nE2B_API_KEY={config.api_key}", flush=True)

    try:
        _run_loop(serve(config, print_env if config.print_env else lambda url: None))
    except IsolationError as error:
        print(f"sandboxes can't be made on this machine as asked for: {error}", file=sys.stderr)
        return EXIT_NO_ISOLATION
    except (StateFileHeld, TemplateError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run_loop(coroutine: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(coroutine)
    else:
        uvloop.run(coroutine)


def _key_file(path: str) -> str:
    try:
        key = Path(path).read_text().strip()
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not re.fullmatch(r"[A-Za-z0-9_-]{16,}", key):
        raise argparse.ArgumentTypeError(
            f"{path} must hold one key of at least 16 letters, digits, '-' or '_'"
        )
    return key
