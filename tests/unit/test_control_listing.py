"""Lists: filters, order, pages, and the encodings of their parameters."""

from __future__ import annotations

import base64
from datetime import datetime, timedelta, timezone
from typing import cast
from urllib.parse import parse_qsl, quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_local.control import listing
from sandbox_local.control.errors import BadRequest
from sandbox_local.control.plan import Plan
from sandbox_local.control.registry import Sandbox, State
from sandbox_local.envd.metrics import Metrics
from sandbox_local.isolation.base import Box, Limits

START = datetime(2025, 1, 31, 12, tzinfo=timezone.utc)


def sandbox(name: str, seconds: float = 0, state: State = State.RUNNING, **metadata: str) -> Sandbox:
    at = START + timedelta(seconds=seconds)
    box, metrics = cast(Box, None), cast(Metrics, None)
    return Sandbox(name, Plan(timeout=60, metadata=metadata), box, metrics, Limits(), at, state)


def names(sandboxes: object) -> list[str]:
    return [found.sandbox_id for found in cast("list[Sandbox]", sandboxes)]


def test_each_condition_of_a_filter_must_hold() -> None:
    one = sandbox("one", 0, user="a", app="x")
    assert listing.Filter().admits(one)
    assert listing.Filter(metadata={"user": "a", "app": "x"}).admits(one)
    assert not listing.Filter(metadata={"user": "a", "app": "y"}).admits(one)
    assert not listing.Filter(metadata={"other": "a"}).admits(one)
    assert not listing.Filter(states=frozenset({State.PAUSED})).admits(one)
    assert listing.Filter(started_after=START).admits(one), "inclusive"
    assert not listing.Filter(started_after=START + timedelta(microseconds=1)).admits(one)
    assert listing.Filter(template="base").admits(one)
    assert listing.Filter(template=one.plan.template.template_id).admits(one)
    assert not listing.Filter(template="other").admits(one)


@given(
    starts=st.lists(st.integers(0, 3), max_size=12),
    limit=st.integers(1, 5),
    ascending=st.booleans(),
)
def test_pages_hold_every_sandbox_once_in_order(starts: list[int], limit: int, ascending: bool) -> None:
    """Ties of the start time, which are what makes pages lose or repeat entries, are likely here."""
    sandboxes = [sandbox(f"i{number:02}", start) for number, start in enumerate(starts)]
    seen: list[Sandbox] = []
    after: listing.Cursor | None = None
    while True:
        page = listing.page(sandboxes, ascending, after, limit)
        assert len(page.sandboxes) <= limit
        seen += page.sandboxes
        if page.next is None:
            break
        assert len(page.sandboxes) == limit
        after = listing.Cursor.decode(page.next.encode(), ascending)
    keys = [(found.started_at, found.sandbox_id) for found in seen]
    assert keys == sorted(keys, reverse=not ascending)
    assert sorted(names(seen)) == sorted(names(sandboxes))


def test_a_page_is_not_shifted_by_what_is_created_meanwhile() -> None:
    sandboxes = [sandbox(f"i{number}", number) for number in range(4)]
    first = listing.page(sandboxes, False, None, 2)
    assert names(first.sandboxes) == ["i3", "i2"]
    assert first.next is not None
    later = [*sandboxes, sandbox("new", 9)]
    assert names(listing.page(later, False, first.next, 2).sandboxes) == ["i1", "i0"]


def test_a_cursor_is_bound_to_its_order() -> None:
    cursor = listing.Cursor(START, "i1", ascending=True)
    assert listing.Cursor.decode(cursor.encode(), ascending=True) == cursor
    with pytest.raises(BadRequest, match="other order"):
        listing.Cursor.decode(cursor.encode(), ascending=False)


@pytest.mark.parametrize(
    "token",
    [
        "garbage",
        "é",
        "===",
        "a" * 5000,
        *(
            base64.urlsafe_b64encode(text).decode()
            for text in (
                b"",
                b"__",
                b"2025__i1",
                b"2025-01-31T12:00:00__i1",
                b"x__i1__asc",
                b"\xff__i",
                b"2025-01-31T12:00:00+00:00__i1__desc",
                b"2025-01-31T12:00:00+00:00__i__asc__asc",
            )
        ),
    ],
)
def test_a_token_that_is_none_of_ours_is_refused(token: str) -> None:
    with pytest.raises(BadRequest, match="nextToken"):
        listing.Cursor.decode(token, ascending=False)


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4))
def test_metadata_arrives_as_the_official_client_encodes_it(metadata: dict[str, str]) -> None:
    sent = urlencode({"metadata": urlencode({quote(key): quote(value) for key, value in metadata.items()})})
    arrived = dict(parse_qsl(sent, keep_blank_values=True)).get("metadata", "")
    assert listing.parse_metadata(arrived) == metadata


def test_the_documented_example_of_metadata() -> None:
    arrived = dict(parse_qsl("metadata=k%252520y%3Dv%2525261%25253D"))["metadata"]
    assert listing.parse_metadata(arrived) == {"k y": "v&1="}
    assert listing.parse_metadata("user=abc&app=prod") == {"user": "abc", "app": "prod"}
    assert listing.parse_metadata(None) == listing.parse_metadata("") == {}


@pytest.mark.parametrize("value", ["user", "a=b&c", "a=%zz", "a=%2", "a=%ff", "&"])
def test_malformed_metadata_is_refused(value: str) -> None:
    with pytest.raises(BadRequest, match="metadata"):
        listing.parse_metadata(value)


def test_states_come_in_one_parameter_or_in_several() -> None:
    both = frozenset(State)
    assert listing.parse_states([]) == listing.parse_states([""]) == both
    assert listing.parse_states(["running,paused"]) == listing.parse_states(["running", "paused"]) == both
    assert listing.parse_states(["paused"]) == {State.PAUSED}
    with pytest.raises(BadRequest, match="state"):
        listing.parse_states(["pausing"])


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [
        ("2025-01-31T12:00:00Z", 0),
        ("2025-01-31T12:00:00.5Z", 500000),
        ("2025-01-31T12:00:00.123456789Z", 123456),
        ("2025-01-31t13:00:00+01:00", 0),
        ("2025-01-31T12:00:00.000001+00:00", 1),
    ],
)
def test_times_are_read_to_the_microsecond(text: str, microsecond: int) -> None:
    assert listing.parse_time("startedAfter", text) == START.replace(microsecond=microsecond)


@pytest.mark.parametrize(
    "text",
    ["", "now", "2025-01-31", "2025-01-31T12:00:00", "2025-02-31T12:00:00Z", "0001-01-01T00:00:00+23:59"],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="startedAfter"):
        listing.parse_time("startedAfter", text)
