"""The ways in which a call can fail."""

from __future__ import annotations

from enum import Enum


class Code(Enum):
    """Status codes shared by Connect and gRPC.

    Attributes:
        number: As gRPC sends it.
        label: As Connect spells it.
        http_status: Status of a Connect unary answer.
    """

    CANCELED = (1, "canceled", 499)
    UNKNOWN = (2, "unknown", 500)
    INVALID_ARGUMENT = (3, "invalid_argument", 400)
    DEADLINE_EXCEEDED = (4, "deadline_exceeded", 504)
    NOT_FOUND = (5, "not_found", 404)
    ALREADY_EXISTS = (6, "already_exists", 409)
    PERMISSION_DENIED = (7, "permission_denied", 403)
    RESOURCE_EXHAUSTED = (8, "resource_exhausted", 429)
    FAILED_PRECONDITION = (9, "failed_precondition", 400)
    ABORTED = (10, "aborted", 409)
    OUT_OF_RANGE = (11, "out_of_range", 400)
    UNIMPLEMENTED = (12, "unimplemented", 501)
    INTERNAL = (13, "internal", 500)
    UNAVAILABLE = (14, "unavailable", 503)
    DATA_LOSS = (15, "data_loss", 500)
    UNAUTHENTICATED = (16, "unauthenticated", 401)

    def __init__(self, number: int, label: str, http_status: int) -> None:
        self.number = number
        self.label = label
        self.http_status = http_status


class RpcError(Exception):
    """A call failed: raised by handlers, and by the engine for what a client got wrong.

    Attributes:
        code: In which way.
        message: What happened and what to do, for the client to read.
    """

    def __init__(self, code: Code, message: str) -> None:
        """Make an error."""
        self.code = code
        self.message = message
        super().__init__(f"{code.label}: {message}")
