"""Errors that become an answer."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus


class ClientGone(Exception):
    """The connection of the client is gone; there is nobody to answer."""


class HttpError(Exception):
    """Raised by a handler or by the engine to answer `{"code": status, "message": message}` as JSON."""

    def __init__(
        self,
        status: int,
        message: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        fields: Mapping[str, object] | None = None,
    ) -> None:
        """Make an error.

        Args:
            status: HTTP status, 400 to 599.
            message: What happened and what to do, for the client to read; the status in words if empty.
            headers: Header fields of the answer.
            fields: Members of the JSON object beside `code` and `message`.
        """
        self.status = status
        self.message = message or HTTPStatus(status).phrase
        self.headers = dict(headers or {})
        self.fields = dict(fields or {})
        super().__init__(f"{status}: {self.message}")


class BodyTooLarge(HttpError):
    """The request body is longer than the handler accepts (413)."""

    def __init__(self, limit: int) -> None:
        """Make an error.

        Args:
            limit: The most bytes that would have been accepted.
        """
        super().__init__(413, f"the request body is longer than {limit} bytes")
