"""The refusals of the control plane that have a name; others are a plain `HttpError`."""

from __future__ import annotations

from sandbox_local.http import HttpError


class BadRequest(HttpError):
    """The request is malformed; the message names the field."""

    def __init__(self, message: str) -> None:
        super().__init__(400, message)


class SandboxNotFound(HttpError):
    """No living sandbox has this id."""

    def __init__(self, sandbox_id: str) -> None:
        super().__init__(404, f"sandbox {sandbox_id} was not found: it never existed here, or it has ended")


class Conflict(HttpError):
    """The state of things does not allow this."""

    def __init__(self, message: str) -> None:
        super().__init__(409, message)


class Unsupported(HttpError):
    """Part of the API that one machine can't offer; the message says why."""

    def __init__(self, message: str) -> None:
        super().__init__(501, message)
