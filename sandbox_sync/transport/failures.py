"""How calls fail below the public errors: what the retry rules and the mapping to errors look at.

Transports raise these, and nothing of the libraries under them. `mapping` turns them into the public errors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

Reason = Literal["connect", "tls", "deadline", "silence", "broken", "cancelled", "answer"]
"""Why a call failed: no connection was made; its encryption was refused; the deadline passed; nothing was
heard for too long; the connection broke; the caller gave up; or the server answered that it failed."""

# The Connect code of a failure that the server did not name, and of answers of what stands before the server.
_CODE_OF_REASON: Mapping[Reason, str] = {
    "deadline": "deadline_exceeded",
    "cancelled": "canceled",
    "answer": "internal",
}
_CODE_OF_STATUS: Mapping[int, str] = {
    400: "invalid_argument",
    401: "unauthenticated",
    403: "permission_denied",
    404: "not_found",
    409: "aborted",  # what proxies say of a sandbox that is changing its state, and not "already_exists"
    413: "resource_exhausted",
    429: "resource_exhausted",
    499: "canceled",
    500: "internal",
    501: "unimplemented",
    502: "unavailable",
    503: "unavailable",
    504: "deadline_exceeded",
    505: "unimplemented",
}
_CODES = frozenset(_CODE_OF_STATUS.values()) | {
    "unknown",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "data_loss",
    "already_exists",
}
# The HTTP status of an answer that the call may be made again after, if its code came without one.
_STATUS_OF_CODE: Mapping[str, int] = {"resource_exhausted": 429, "unavailable": 503, "deadline_exceeded": 504}
# Answers after which the call has certainly had no effect.
_REFUSING_STATUSES = frozenset({400, 401, 403, 404, 405, 409, 411, 413, 415, 422, 429, 501, 505, 507})
# Answers of servers that expect another protocol: 464 is that of a load balancer which waits for HTTP/2.
_FOREIGN_STATUSES = frozenset({405, 406, 415, 426, 464, 505})
_AMBIGUOUS_CODES = frozenset(
    {"canceled", "deadline_exceeded", "unavailable", "internal", "unknown", "data_loss"}
)

# What the edge in front of sandboxes says; official clients look for the same words.
_SANDBOX_GONE = "was not found"
_PORT_CLOSED = "port is not open"

_LONGEST_QUOTE = 500


class Failure(Exception):
    """A call that failed.

    Attributes:
        reason: Why.
        sent: Whether any of the request may have reached the server.
        status: HTTP status of the answer, if there was one.
        headers: Headers of the answer, names in lower case.
        maybe_executed: Whether the call, or an earlier attempt of it, may have taken effect.
        is_of_something_else: Whether the answer is not one of the service, as under a wrong URL.
        spent: Whether what the call sends has been used up, so that it cannot be made again.
    """

    is_of_something_else = False
    spent = False

    def __init__(
        self,
        message: str,
        *,
        reason: Reason,
        sent: bool = True,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.sent = sent
        self.status = status
        self.headers = headers or {}
        self.maybe_executed = self.leaves_doubt()

    def leaves_doubt(self) -> bool:
        """Whether the server may have done what was asked in spite of this failure."""
        return self.sent and self.status not in _REFUSING_STATUSES

    @property
    def likened_status(self) -> int | None:
        """The HTTP status of the answer, or of one that would say the same."""
        return self.status

    @property
    def unavailable(self) -> bool:
        """Whether the answer is that the sandbox cannot be reached."""
        return self.reason == "answer" and self.status == 502

    @property
    def says_gone(self) -> bool:
        """Whether this is the service's word that the sandbox is not there, which is the only evidence."""
        return self.unavailable and _SANDBOX_GONE in self.message

    @property
    def says_port_closed(self) -> bool:
        """Whether this is the service's word that the sandbox is there and the port is not open."""
        return self.unavailable and _PORT_CLOSED in self.message


class HTTPFailure(Failure):
    """A plain HTTP call that failed.

    Attributes:
        body: The answer's body, if there was one.
    """

    def __init__(self, message: str, *, body: bytes = b"", **particulars: Any) -> None:
        super().__init__(message, **particulars)
        self.body = body
        self.is_of_something_else = _is_no_json(body)

    @classmethod
    def from_answer(cls, status: int, headers: Mapping[str, str], body: bytes) -> HTTPFailure:
        """The failure that an answer with an error status stands for."""
        return cls(
            words_of(status, body),
            reason="answer",
            status=status,
            headers=_lower(headers),
            body=body,
        )


def require_json(status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Make sure that a good answer is one of the service's, which have JSON for a body or none.

    Raises:
        HTTPFailure: It is a page of something else.
    """
    if _is_no_json(body):
        kind = headers.get("content-type", "").split(";")[0] or "of no type"
        words = (
            f"something answered with HTTP status {status} and no JSON ({kind}): is the URL the service's?"
        )
        raise HTTPFailure(words, reason="answer", status=status, headers=_lower(headers), body=body)


class RpcFailure(Failure):
    """A remote procedure call that failed, whichever way it went.

    Attributes:
        code: One of the sixteen codes that gRPC and Connect share, in Connect's spelling: "not_found".
        is_of_proxy: Whether the answer named no such code, as those of what stands before a server do.
    """

    is_of_proxy = False

    def __init__(self, message: str, *, code: str, **particulars: Any) -> None:
        self.code = code
        super().__init__(message, **particulars)

    def leaves_doubt(self) -> bool:
        return super().leaves_doubt() and (self.reason != "answer" or self.code in _AMBIGUOUS_CODES)

    @property
    def likened_status(self) -> int | None:
        return self.status or _STATUS_OF_CODE.get(self.code)

    @property
    def unavailable(self) -> bool:
        return self.reason == "answer" and self.code == "unavailable"

    @property
    def is_of_no_rpc(self) -> bool:
        """Whether the answer is such as servers give that do not speak the protocol of the call."""
        return self.is_of_something_else or (self.is_of_proxy and self.status in _FOREIGN_STATUSES)

    @classmethod
    def below(cls, failure: Failure) -> RpcFailure:
        """The failure of a call whose HTTP exchange failed."""
        code = _CODE_OF_REASON.get(failure.reason, "unavailable")
        above = cls(failure.message, code=code, reason=failure.reason, sent=failure.sent)
        above.is_of_something_else = failure.is_of_something_else
        return above

    @classmethod
    def from_answer(cls, status: int, headers: Mapping[str, str], body: bytes) -> RpcFailure:
        """The failure that an answer with an error status stands for, the server's or a proxy's."""
        said = json_object(body).get("code")
        named = isinstance(said, str) and said in _CODES
        # Proxies and the token check answer with the HTTP status for a code.
        code = _CODE_OF_STATUS.get(said if isinstance(said, int) else status, "unknown")
        failure = cls(
            words_of(status, body),
            code=str(said) if named else code,
            reason="answer",
            status=status,
            headers=_lower(headers),
        )
        failure.is_of_proxy = not named
        failure.is_of_something_else = _is_no_json(body)
        return failure

    @classmethod
    def from_end(cls, error: Any, metadata: Any = None) -> RpcFailure:
        """The failure that the last frame of a stream tells of.

        Args:
            error: An object with a code and a message.
            metadata: What would be headers in an answer of its own: names, and lists of values.
        """
        words = error if isinstance(error, dict) else {}
        code, message = words.get("code"), words.get("message")
        return cls(
            message[:_LONGEST_QUOTE] if isinstance(message, str) else "",
            code=code if isinstance(code, str) and code in _CODES else "unknown",
            reason="answer",
            headers={
                name.lower(): values[0]
                for name, values in (metadata.items() if isinstance(metadata, dict) else ())
                if isinstance(values, list) and values and isinstance(values[0], str)
            },
        )


def words_of(status: int, body: bytes) -> str:
    """What an answer with an error status says, for people: its message, or its text, or just the status."""
    message = json_object(body).get("message")
    if isinstance(message, str) and message:
        return message[:_LONGEST_QUOTE]
    text = body[:_LONGEST_QUOTE].decode("utf-8", "replace").strip()
    if text and not text.startswith(("<", "{")):
        return text
    if 300 <= status < 400:
        return (
            f"the server redirects (HTTP status {status}), which is not followed: is the URL the service's?"
        )
    return f"the server answered with HTTP status {status}"


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object that a body holds; empty if it holds none."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _is_no_json(body: bytes) -> bool:
    """Whether there is a body, and it is nothing that a JSON API would send."""
    if not body.strip():
        return False
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return True
    return False


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
