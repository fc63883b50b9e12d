"""`sandbox_local forward`: a TCP port of this machine that leads to a port of a sandbox."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import re
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

from sandbox_local.forwarding import ForwardError, Forwarding, Target

_EPILOG = """\
example: reach PostgreSQL in a sandbox with the tools of this machine

  sandbox_local forward i0123456789abcdefghij 5432 --listen 15432 &
  psql -h 127.0.0.1 -p 15432
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this command to the command line."""
    parser = commands.add_parser(
        "forward",
        help="lead a TCP port of this machine to a port of a sandbox, until Ctrl-C",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sandbox_id", type=_sandbox_id, metavar="SANDBOX_ID")
    parser.add_argument("port", type=_port, metavar="PORT", help="TCP port in the sandbox")
    parser.add_argument(
        "--listen",
        type=_listen,
        metavar="[HOST:]PORT",
        help="where to listen (default: the same port on 127.0.0.1; 0 takes any free one)",
    )
    parser.add_argument(
        "--url",
        default=os.environ.get("E2B_SANDBOX_URL"),
        help="URL of the server (default: E2B_SANDBOX_URL)",
    )
    parser.add_argument(
        "--traffic-token-file",
        type=Path,
        metavar="PATH",
        help="file with the traffic access token of a sandbox whose ports are closed to the public",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    if not options.url or urlsplit(options.url).scheme not in ("http", "https"):
        print("no server: give its URL with --url, or set E2B_SANDBOX_URL to it", file=sys.stderr)
        return 2
    try:
        token = options.traffic_token_file.read_text().strip() if options.traffic_token_file else None
        target = Target(options.url, options.sandbox_id, options.port, token)
        asyncio.run(_forward(target, *(options.listen or ("127.0.0.1", options.port))))
    except (ForwardError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


async def _forward(target: Target, host: str, port: int) -> None:
    stopped = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stopped.set)
    await target.check()
    forwarding = Forwarding(target, lambda problem: print(problem, file=sys.stderr, flush=True))
    try:
        listener = await forwarding.listen(host, port)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        raise OSError(f"can't listen on {host} port {port}: {reason}; choose another with --listen") from None
    async with listener:
        where, bound = listener.sockets[0].getsockname()[:2]
        if not ipaddress.ip_address(where).is_loopback:
            print(f"listening on {where}: other machines can reach the sandbox's port", file=sys.stderr)
        shown = f"[{where}]" if ":" in where else where
        print(f"{shown}:{bound} leads to port {target.port} of sandbox {target.sandbox_id}", flush=True)
        await stopped.wait()
        listener.close()
        await forwarding.close()


def _sandbox_id(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the id of a sandbox")
    return text


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: a number between 1 and 65535")
    return int(text)


def _listen(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if (colon and not host) or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is neither PORT nor HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)
