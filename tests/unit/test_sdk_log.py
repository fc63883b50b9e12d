"""What is logged of calls, and what logging costs where nobody listens."""

from __future__ import annotations

import logging

import pytest

from sandbox_sync.config import ConnectionConfig
from sandbox_sync.deadlines import Deadline
from sandbox_sync.errors import InvalidArgumentException
from sandbox_sync.retries import call
from sandbox_sync.transport.failures import Failure, HTTPFailure, RpcFailure
from sandbox_sync.transport.log import CallLog


@pytest.fixture
def logger(caplog: pytest.LogCaptureFixture) -> logging.Logger:
    caplog.set_level(logging.DEBUG, "a.program")
    return logging.getLogger("a.program")


def made(logger: logging.Logger, *outcomes: object) -> None:
    """Make a call whose attempts end like this."""
    left = list(outcomes)

    def attempt() -> object:
        outcome = left.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    log = CallLog(logger, "GET", "/x", "i1")
    call(attempt, repeatable=True, deadline=Deadline.after(60), log=log, sleep=lambda wait: None)


def test_attempts_and_repetitions_are_told(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    broken = Failure("secret words of a server", reason="broken")
    busy = HTTPFailure.from_answer(503, {"Retry-After": "2", "X": "secret"}, b"secret body")
    made(logger, broken, busy, "done")
    said = [(record.levelname, record.getMessage().partition(" after ")[0]) for record in caplog.records]
    waits = [message for level, message in said if level == "INFO"]
    assert [level for level, _ in said] == ["DEBUG", "INFO", "DEBUG", "INFO", "DEBUG"]
    assert [message for level, message in said if level == "DEBUG"] == [
        "GET /x of sandbox i1: broken",
        "GET /x of sandbox i1: HTTP 503",
        "GET /x of sandbox i1: ok",
    ]
    assert waits[0].startswith("GET /x of sandbox i1: broken, trying again in 0.")
    assert waits[1] == "GET /x of sandbox i1: HTTP 503, trying again in 2.00 s (attempt 2)"
    assert "(attempt 3)" in caplog.messages[-1]
    assert "secret" not in caplog.text


def test_repetitions_alone_are_told_at_info(logger: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "a.program")
    made(logger, RpcFailure("", code="unavailable", reason="answer"), "done")
    (record,) = caplog.records
    assert record.getMessage().startswith("GET /x of sandbox i1: unavailable, trying again in 0.")


def test_errors_of_the_caller_are_told_by_name(
    logger: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KeyboardInterrupt):
        made(logger, KeyboardInterrupt("secret"))
    assert caplog.messages[0].startswith("GET /x of sandbox i1: KeyboardInterrupt after 0.")


def test_where_nobody_listens_an_attempt_is_not_even_wrapped() -> None:
    logger = logging.getLogger("nobody.listens")
    logger.setLevel(logging.WARNING)
    attempt = object
    assert CallLog(logger, "GET", "/x", None).watched(attempt) is attempt


def test_the_option() -> None:
    logger = logging.getLogger("a.program")
    assert ConnectionConfig.resolve(api_key="k", logger=logger).log is logger
    assert ConnectionConfig.resolve(api_key="k").log is logging.getLogger("sandbox_sync")
    with pytest.raises(InvalidArgumentException, match="logger"):
        ConnectionConfig.resolve(api_key="k", logger="a.program")  # type: ignore[arg-type]
