"""Failures of the box as every call of envd answers them."""

from __future__ import annotations

import errno

from sandbox_local.http import HttpError
from sandbox_local.isolation.base import BoxGone, NoAnswer, UnknownUser
from sandbox_local.rpc import Code, RpcError

SHORTAGES = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""What it is called when the machine, or a bound of the server or the box, gives no more of something."""


def rpc_error(error: BoxGone | UnknownUser) -> RpcError:
    """The answer to a failure that has the same meaning whatever was asked for."""
    if isinstance(error, UnknownUser):
        return RpcError(Code.UNAUTHENTICATED, str(error))
    # Clients know a sandbox that has ended by these words.
    return RpcError(Code.UNAVAILABLE, "The sandbox was not found: it has ended")


def unable(error: OSError) -> HttpError | None:
    """The answer to a failure that has nothing to do with what was asked for; None for all others.

    The box does not answer (504), or something has run out, and the same request may succeed later (503).
    """
    if isinstance(error, NoAnswer):
        return HttpError(504, error.strerror or str(error))
    if error.errno in SHORTAGES:
        return HttpError(503, f"{error.strerror or error}; try again when there is more")
    return None
