"""Which failed calls are made again, and when. The rules are functions of data; tenacity carries them out."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sandbox_sync._later import later
from sandbox_sync.config import DEFAULT_RETRIES
from sandbox_sync.deadlines import Deadline
from sandbox_sync.transport.failures import Failure

if TYPE_CHECKING:
    import tenacity

    from sandbox_sync.transport.log import CallLog
else:
    tenacity = later("tenacity")

T = TypeVar("T")

_FIRST_WAIT = 0.1
_LONGEST_WAIT = 10.0
# A server that asks for a longer wait is not waited for: its error says how long it would be.
_LONGEST_ASKED = 120.0
_TRANSIENT_STATUSES = frozenset({429, 502, 503, 504})
_TRANSIENT_REASONS = frozenset({"connect", "broken"})


class Attempt(NamedTuple):
    """What the decision to repeat a call depends on.

    Attributes:
        number: 1 for the first attempt.
        repeatable: Whether doing it twice does no harm: an idempotent call, or one with an Idempotency-Key.
        reason: Why it failed; see `failures.Reason`.
        sent: Whether any of it may have reached the server.
        status: HTTP status of the answer, or of one that would say the same; None if there is none.
        headers: Headers of the answer, names in lower case.
        time_left: Seconds until the deadline; None for any time.
        gone: Whether the service says that the sandbox is not there.
        spent: Whether what it sends has been used up.
        most: How often the call may be repeated.
    """

    number: int
    repeatable: bool
    reason: str
    sent: bool = True
    status: int | None = None
    headers: Mapping[str, str] | None = None
    time_left: float | None = None
    gone: bool = False
    spent: bool = False
    most: int = DEFAULT_RETRIES


def wait_before_retry(attempt: Attempt, *, jitter: float = 1.0, now: datetime | None = None) -> float | None:
    """How long to wait before a failed call is made again.

    Args:
        attempt: The attempt that failed.
        jitter: Factor on waits of our own choice, so that many clients do not come back in step.
        now: The time that an HTTP date is compared with; another one in tests.

    Returns:
        Seconds, or None when the call is not to be made again.
    """
    headers = attempt.headers or {}
    if attempt.number > attempt.most or not _may_repeat(attempt, headers.get("should-retry", "").lower()):
        return None
    asked = retry_after(headers, now)
    wait = min(_FIRST_WAIT * 2 ** (attempt.number - 1), _LONGEST_WAIT) * jitter if asked is None else asked
    too_long = wait > _LONGEST_ASKED or (attempt.time_left is not None and wait >= attempt.time_left)
    return None if too_long else wait


def _may_repeat(attempt: Attempt, should_retry: str) -> bool:
    if attempt.gone or attempt.spent:
        return False
    if attempt.reason == "answer":
        if should_retry in ("true", "false"):
            return should_retry == "true"
        # "Too many requests" is said before anything is done; the others leave open whether something was.
        return attempt.status in _TRANSIENT_STATUSES and (attempt.repeatable or attempt.status == 429)
    return attempt.reason in _TRANSIENT_REASONS and (attempt.repeatable or not attempt.sent)


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """The wait that the server asked for, in seconds.

    Args:
        headers: Names in lower case. Retry-After may be a number of seconds or a date.
        now: The time that a date is compared with.
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - (now or datetime.now(timezone.utc))).total_seconds())


def call(
    attempt: Callable[[], T],
    *,
    repeatable: bool,
    deadline: Deadline,
    most: int = DEFAULT_RETRIES,
    log: CallLog | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Make a call, and make it again as the rules say.

    Args:
        attempt: Makes it once.
        repeatable: Whether doing it twice does no harm.
        deadline: When all attempts have to be over.
        most: How often it may be repeated.
        log: Is told of each attempt.
        sleep: Waits; another one in tests.

    Raises:
        Failure: That of the last attempt, marked `maybe_executed` when any attempt may have been.
    """
    if log is not None:
        attempt = log.watched(attempt)
    try:
        # Almost every call ends here, and need not load tenacity.
        return attempt()
    except Failure as failure:
        first = failure
    terms = _Terms(repeatable, deadline, most)
    if _decide(1, first, terms) is None:
        raise first
    return _repeat(first, attempt, terms, log, sleep)


class _Terms(NamedTuple):
    repeatable: bool
    deadline: Deadline
    most: int


def _repeat(
    first: Failure,
    attempt: Callable[[], T],
    terms: _Terms,
    log: CallLog | None,
    sleep: Callable[[float], None],
) -> T:
    pending: list[Failure] = [first]
    wait = 0.0
    doubt = False

    def attempt_again() -> T:
        if pending:
            raise pending.pop()
        return attempt()

    def is_to_be_repeated(state: tenacity.RetryCallState) -> bool:
        nonlocal wait, doubt
        failure = state.outcome.exception() if state.outcome else None
        if not isinstance(failure, Failure):
            return False
        doubt = failure.maybe_executed = doubt or failure.maybe_executed
        decided = _decide(state.attempt_number, failure, terms)
        wait = decided or 0.0
        if log is not None and decided is not None:
            log.repeated(state.attempt_number, failure, decided)
        return decided is not None

    retrying = tenacity.Retrying(retry=is_to_be_repeated, wait=lambda state: wait, sleep=sleep, reraise=True)
    return retrying(attempt_again)


def _decide(number: int, failure: Failure, terms: _Terms) -> float | None:
    attempt = Attempt(
        number=number,
        repeatable=terms.repeatable,
        reason=failure.reason,
        sent=failure.sent,
        status=failure.likened_status,
        headers=failure.headers,
        time_left=terms.deadline.remaining(),
        gone=failure.says_gone,
        spent=failure.spent,
        most=terms.most,
    )
    return wait_before_retry(attempt, jitter=random.uniform(0.5, 1.0))
