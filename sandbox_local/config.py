"""How the server is to run, and what bounds it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from sandbox_local.isolation.base import Limits

# Each sandbox costs under 2 MiB of memory while it idles; the bound is there for programs that leak them.
MOST_SANDBOXES = 500


def new_api_key() -> str:
    """A random key of the usual form."""
    return "e2b_" + secrets.token_hex(20)


@dataclass(frozen=True)
class Config:
    """What `serve` was asked for.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 lets the kernel choose one.
        api_key: What requests to the control plane must carry.
        print_env: Whether to print the variables that clients need, when ready.
        state_file: File to write when ready: where the server is and how to use it.
        idle_exit: Seconds without a sandbox and without a request after which the server ends by itself.
        lifeline: Descriptor whose end of file ends the server: the process that started it has died.
        isolation: Whose kernel commands run on: the host's ("namespaces") or gVisor's ("gvisor").
        sandboxes: How many sandboxes may live at once.
        limits: What each sandbox may use.
        internet: Whether sandboxes have a network.
        templates: Directory that templates are kept in, or None for a server that has `base` alone.
    """

    host: str = "127.0.0.1"
    port: int = 0
    api_key: str = field(default_factory=new_api_key, repr=False)
    print_env: bool = False
    state_file: Path | None = None
    idle_exit: float | None = None
    lifeline: int | None = None
    isolation: str = "namespaces"
    sandboxes: int = MOST_SANDBOXES
    limits: Limits = field(default_factory=Limits)
    internet: bool = False
    templates: Path | None = None
