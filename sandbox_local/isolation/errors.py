"""What can be wrong with a machine, a box or a request to a box; and how a box tells it to the server."""

from __future__ import annotations

import errno
from typing import Any


class IsolationError(Exception):
    """This machine cannot make an isolated environment; the message says why and what to change."""


class BoxGone(Exception):
    """The box has ended: it was closed, or its first process died."""


class UnknownUser(Exception):
    """The box has no user of that name."""


class MissingDirectory(Exception):
    """The working directory asked for does not exist in the box."""


class LauncherGone(IsolationError):
    """The process that makes boxes has died, and its boxes with it; the next creation starts another."""


class NoAnswer(OSError):
    """A process of ours in or around a box did not answer in time: it stands still, or the machine does."""

    def __init__(self, seconds: float) -> None:
        """Say it.

        Args:
            seconds: The time it had.
        """
        super().__init__(errno.ETIMEDOUT, f"the sandbox does not answer: it had {seconds:g} s")


def describe(error: Exception) -> dict[str, Any]:
    """An error as `wire` carries it."""
    if isinstance(error, UnknownUser):
        return {"kind": "user", "message": str(error)}
    if isinstance(error, MissingDirectory):
        return {"kind": "directory", "message": str(error)}
    if isinstance(error, OSError):
        message = error.strerror or str(error)
        if isinstance(error.filename, bytes):  # a path of the box's, as its user gave or made it
            message += f": {error.filename.decode('utf-8', 'replace')}"
        return {"kind": "os", "errno": error.errno or errno.EIO, "message": message}
    if isinstance(error, ValueError):
        return {"kind": "path", "message": str(error)}
    return {"kind": "internal", "message": f"{type(error).__name__}: {error}"}


def restore(told: Any) -> Exception:
    """The error that was described; `told` may be anything, since nobody trusts who sent it."""
    error = told if isinstance(told, dict) else {}
    kind, number, text = error.get("kind"), error.get("errno"), str(error.get("message", ""))
    if kind == "os" and isinstance(number, int) and 0 < number < 4096:
        return OSError(number, text)
    if kind == "user":
        return UnknownUser(text)
    if kind == "directory":
        return MissingDirectory(text)
    if kind == "path":
        return ValueError(text)
    return RuntimeError(f"a sandbox's helper failed: {text}")
