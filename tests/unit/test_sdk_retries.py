"""Which calls are made again, and when: the rules as data, and calls on a clock of the test's own."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_sync import retries
from sandbox_sync.config import DEFAULT_RETRIES
from sandbox_sync.deadlines import Deadline
from sandbox_sync.retries import Attempt, retry_after, wait_before_retry
from sandbox_sync.transport.failures import Failure, HTTPFailure, RpcFailure

NOON = datetime(2030, 1, 1, 12, 0, 0, tzinfo=timezone.utc)


def attempt(**changes: Any) -> Attempt:
    return Attempt(**{"number": 1, "repeatable": True, "reason": "answer", "status": 503, **changes})


@pytest.mark.parametrize(
    ("changes", "wait"),
    [
        # Answers
        ({}, 0.1),
        ({"status": 502}, 0.1),
        ({"status": 504}, 0.1),
        ({"status": 429}, 0.1),
        ({"status": 500}, None),
        ({"status": 404}, None),
        ({"status": 409}, None),
        ({"status": None}, None),
        # A call that may have run is made again only if that does no harm.
        ({"repeatable": False}, None),
        ({"repeatable": False, "status": 502}, None),
        ({"repeatable": False, "status": 504}, None),
        ({"repeatable": False, "status": 429}, 0.1),
        # The server's word counts more than any rule.
        ({"repeatable": False, "headers": {"should-retry": "true"}}, 0.1),
        ({"status": 500, "headers": {"should-retry": "True"}}, 0.1),
        ({"headers": {"should-retry": "false"}}, None),
        ({"headers": {"should-retry": "perhaps"}}, 0.1),
        # Connections
        ({"reason": "connect", "sent": False, "status": None}, 0.1),
        ({"reason": "connect", "sent": False, "status": None, "repeatable": False}, 0.1),
        ({"reason": "broken", "status": None}, 0.1),
        ({"reason": "broken", "status": None, "repeatable": False}, None),
        ({"reason": "tls", "sent": False, "status": None}, None),
        ({"reason": "deadline", "status": None}, None),
        ({"reason": "silence", "status": None}, None),
        ({"reason": "cancelled", "status": None}, None),
        # Who is gone does not come back.
        ({"status": 502, "gone": True}, None),
        ({"reason": "answer", "status": 502, "gone": True, "headers": {"should-retry": "true"}}, None),
        # What was read from a stream of the caller's cannot be read again.
        ({"status": 429, "spent": True}, None),
        ({"spent": True, "headers": {"should-retry": "true"}}, None),
        # Waits grow, and end.
        ({"number": 2}, 0.2),
        ({"number": 3}, 0.4),
        ({"number": 4}, None),
        # G20: the server says how long, and no wait outlives the deadline.
        ({"headers": {"retry-after": "2"}}, 2.0),
        ({"headers": {"retry-after": "2"}, "time_left": 3.0}, 2.0),
        ({"headers": {"retry-after": "2"}, "time_left": 2.0}, None),
        ({"headers": {"retry-after": "2"}, "time_left": 1.0}, None),
        ({"headers": {"retry-after": "0"}}, 0.0),
        ({"headers": {"retry-after": "Tue, 01 Jan 2030 12:00:05 GMT"}}, 5.0),
        ({"headers": {"retry-after": "soon"}}, 0.1),
        ({"headers": {"retry-after": "86400"}}, None),
        ({"time_left": 0.05}, None),
        ({"time_left": 0.0}, None),
    ],
)
def test_the_rules(changes: dict[str, Any], wait: float | None) -> None:
    assert wait_before_retry(attempt(**changes), now=NOON) == wait


def test_waits_of_our_own_are_spread_and_the_servers_are_kept() -> None:
    assert wait_before_retry(attempt(), jitter=0.5) == 0.05
    assert wait_before_retry(attempt(headers={"retry-after": "2"}), jitter=0.5) == 2.0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("3", 3.0),
        (" 3 ", 3.0),
        ("Tue, 01 Jan 2030 12:01:00 GMT", 60.0),
        ("Tue, 01 Jan 2030 12:01:00", 60.0),
        ("Tue, 01 Jan 2030 11:00:00 GMT", 0.0),
        ("-1", None),
        ("1.5", None),
        ("", None),
        ("²", None),
        ("Mon, 99 Foo 99999 99:99:99 GMT", None),
        ("9" * 400, 999999999.0),
    ],
)
def test_retry_after(value: str, expected: float | None) -> None:
    assert retry_after({"retry-after": value}, NOON) == expected


class Script:
    """Attempts that end as told, and a clock that only waits move."""

    def __init__(self, *outcomes: object) -> None:
        self.outcomes = list(outcomes)
        self.waits: list[float] = []
        self.now = 0.0

    def attempt(self) -> object:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def sleep(self, wait: float) -> None:
        self.waits.append(wait)
        self.now += wait

    def call(self, *, repeatable: bool = True, within: float | None = 60.0) -> object:
        deadline = Deadline.after(within, lambda: self.now)
        return retries.call(self.attempt, repeatable=repeatable, deadline=deadline, sleep=self.sleep)


def busy(status: int = 503, **headers: str) -> HTTPFailure:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HTTPFailure.from_answer(status, named, b"")


def test_a_call_that_works_is_made_once() -> None:
    script = Script("done")
    assert (script.call(), script.waits) == ("done", [])


def test_a_call_is_made_again_until_it_works() -> None:
    """G20: two waits of the length that the server asked for, within the budget."""
    script = Script(busy(429, retry_after="2"), busy(503, retry_after="2"), "done")
    assert script.call() == "done"
    assert script.waits == [2.0, 2.0]


def test_the_last_failure_reaches_the_caller_as_it_is() -> None:
    last = busy(502)
    script = Script(busy(), busy(504), busy(), last)
    with pytest.raises(HTTPFailure) as caught:
        script.call()
    assert caught.value is last
    assert len(script.waits) == DEFAULT_RETRIES


def test_a_wait_longer_than_the_budget_is_not_begun() -> None:
    """G20: raise at once, with the time to come back."""
    script = Script(busy(429, retry_after="30"))
    with pytest.raises(HTTPFailure) as caught:
        script.call(within=5.0)
    assert script.waits == []
    assert retry_after(caught.value.headers) == 30.0


def test_the_budget_is_for_all_waits_together() -> None:
    """G4: back-off counts."""
    script = Script(*[busy(503, retry_after="2") for _ in range(3)])
    with pytest.raises(HTTPFailure):
        script.call(within=5.0)
    assert script.now == 4.0


def test_what_is_no_failure_of_a_call_is_not_repeated() -> None:
    for error in (KeyboardInterrupt(), ValueError("bug")):
        script = Script(busy(), error)
        with pytest.raises(type(error)):
            script.call()


@pytest.mark.parametrize(
    ("first", "doubt"),
    [
        (busy(502), True),
        (busy(429), False),
        (Failure("refused", reason="connect", sent=False), False),
        (Failure("reset", reason="broken"), True),
    ],
)
def test_doubt_about_an_earlier_attempt_is_kept(first: Failure, doubt: bool) -> None:
    """G59: "not found" after an unclear first attempt may mean that the first one worked."""
    script = Script(first, busy(404))
    with pytest.raises(HTTPFailure) as caught:
        script.call()
    assert caught.value.status == 404
    assert caught.value.maybe_executed is doubt


# Any failure that there can be, as the rules see it.

WAITS_ASKED = st.one_of(
    st.integers(0, 200).map(str),
    st.integers(-100, 200).map(lambda ahead: format_datetime(NOON + timedelta(seconds=ahead), usegmt=True)),
    st.sampled_from(["", "soon", "-1", "1e9", "9" * 30]),
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "retry-after": WAITS_ASKED,
        "should-retry": st.sampled_from(["true", "false", "TRUE", "x", ""]),
    },
)
ATTEMPTS = st.builds(
    Attempt,
    number=st.integers(1, 6),
    repeatable=st.booleans(),
    reason=st.sampled_from(["connect", "tls", "deadline", "silence", "broken", "cancelled", "answer"]),
    sent=st.booleans(),
    status=st.none() | st.sampled_from([200, 307, 400, 401, 404, 409, 429, 500, 502, 503, 504, 507]),
    headers=st.none() | HEADERS,
    time_left=st.none() | st.floats(0, 300),
    gone=st.booleans(),
    spent=st.booleans(),
)


@given(ATTEMPTS, st.floats(0.5, 1.0))
def test_no_wait_outlives_the_deadline_and_none_is_endless(attempt: Attempt, jitter: float) -> None:
    """G4, G20."""
    wait = wait_before_retry(attempt, jitter=jitter, now=NOON)
    if wait is not None:
        assert 0 <= wait <= 120
        assert attempt.number <= attempt.most
        assert attempt.time_left is None or wait < attempt.time_left


@given(ATTEMPTS)
def test_what_may_have_run_is_not_run_again(attempt: Attempt) -> None:
    """G45: unless that does no harm, or the server says that it has not, or that it is to be."""
    headers = attempt.headers or {}
    if wait_before_retry(attempt, now=NOON) is not None and not attempt.repeatable:
        refused = attempt.reason == "answer" and attempt.status == 429
        asked = attempt.reason == "answer" and headers.get("should-retry", "").lower() == "true"
        unsent = attempt.reason in ("connect", "broken") and not attempt.sent
        assert refused or asked or unsent


@given(ATTEMPTS)
def test_the_word_of_the_server_is_obeyed(attempt: Attempt) -> None:
    """G20: a wait that is asked for is waited for, neither less nor more; a no is a no."""
    headers = attempt.headers or {}
    wait = wait_before_retry(attempt, jitter=0.7, now=NOON)
    asked = retry_after(headers, NOON)
    if wait is not None and asked is not None:
        assert wait == asked
    if attempt.reason == "answer" and headers.get("should-retry", "").lower() == "false":
        assert wait is None
    if attempt.gone or attempt.spent or attempt.reason in ("tls", "deadline", "silence", "cancelled"):
        assert wait is None


FAILURES = st.one_of(
    st.builds(
        busy,
        st.sampled_from([429, 500, 502, 503, 504]),
        retry_after=st.integers(0, 30).map(str),
    ),
    st.builds(busy, st.sampled_from([429, 502, 503, 504])),
    st.builds(lambda sent: Failure("x", reason="broken", sent=sent), st.booleans()),
    st.builds(lambda: Failure("x", reason="connect", sent=False)),
    st.builds(
        lambda code: RpcFailure("x", code=code, reason="answer"),
        st.sampled_from(["unavailable", "resource_exhausted", "internal", "deadline_exceeded"]),
    ),
)


@given(st.lists(FAILURES, min_size=5, max_size=5), st.floats(0.01, 60), st.booleans())
def test_all_waits_together_never_outlive_the_deadline(
    failures: list[Failure], within: float, repeatable: bool
) -> None:
    """G4: whatever fails and however often, on a clock that only waits move."""
    script = Script(*failures)
    with pytest.raises(Failure) as caught:
        script.call(repeatable=repeatable, within=within)
    made = 5 - len(script.outcomes)
    assert script.now < within
    assert made == len(script.waits) + 1 <= 1 + DEFAULT_RETRIES
    assert caught.value is failures[made - 1]
    doubts = [failure.leaves_doubt() for failure in failures[:made]]
    assert caught.value.maybe_executed == any(doubts)
    if not repeatable:
        assert not any(doubts[:-1]), "what may have run was run again"


@pytest.mark.parametrize(
    ("code", "again"),
    [("resource_exhausted", True), ("unavailable", True), ("deadline_exceeded", True), ("internal", False)],
)
def test_a_code_without_a_status_counts_as_the_status_that_says_the_same(code: str, again: bool) -> None:
    """G60: over gRPC, and at the end of a stream, there is none."""
    script = Script(RpcFailure("x", code=code, reason="answer"), "done")
    if again:
        assert script.call() == "done"
    else:
        with pytest.raises(RpcFailure):
            script.call()
