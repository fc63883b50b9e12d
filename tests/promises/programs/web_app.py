"""The WSGI app that the servers of servers.py serve.

It uses the SDK when it is imported, which a preloading server does in the process that forks its workers: a
request, a command in the background that is still followed when the workers are forked, and another after it,
whose connection is kept for the next call.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from client import Sandbox, sandbox

box = sandbox()
Sandbox.get_info(box.sandbox_id)
handle = box.commands.run("sleep 50", background=True)
box.commands.run("true")


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Run a command in the sandbox of the import, or in a new one; or say which that of the import is."""
    command = parse_qs(environ["QUERY_STRING"]).get("command", ["true"])[0]
    if environ["PATH_INFO"] == "/id":
        text = box.sandbox_id
    elif environ["PATH_INFO"] == "/same":
        text = box.commands.run(command).stdout
    elif environ["PATH_INFO"] == "/background":
        text = box.commands.run(command, background=True).wait().stdout
    else:
        with sandbox() as other:
            text = other.commands.run(command).stdout
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Worker", str(os.getpid()))])
    return [text.encode()]
