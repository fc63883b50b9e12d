"""Finding real sandboxes: every condition of a query alone and together, and pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta, timezone
from uuid import uuid4

import pytest

from sandbox_sync import InvalidArgumentException, Sandbox, SandboxQuery, SandboxState

BOTH = [SandboxState.RUNNING, SandboxState.PAUSED]

ODD = [
    "a b",
    "a+b",
    "a&b=c",
    "a%20b",
    "%",
    "\u00e4\u20ac\U0001f600",
    "'\"\\",
    "a/b?c#d",
    "line\nbreak\ttab",
    "",
    " ",
    "{}[],;:",
]


@contextmanager
def made(number: int, **metadata: str) -> Iterator[list[Sandbox]]:
    """Sandboxes that bear a mark of their own, in the order of their start."""
    with ExitStack() as stack:
        yield [stack.enter_context(Sandbox.create(metadata={**metadata, "n": str(n)})) for n in range(number)]


def ids(query: SandboxQuery, **options: object) -> list[str]:
    return [info.sandbox_id for info in Sandbox.list(query=query, **options)]  # type: ignore[arg-type]


@pytest.mark.documented("Sandbox.list")
@pytest.mark.usefixtures("server_env", "transport")
def test_metadata_of_any_characters_is_found_and_nothing_else() -> None:
    mark = uuid4().hex
    with Sandbox.create(metadata={"mark": mark, **{f"k{text}": text for text in ODD}}) as sandbox:
        for text in ODD:
            query = SandboxQuery(metadata={"mark": mark, f"k{text}": text})
            assert ids(query) == [sandbox.sandbox_id], text
            assert ids(SandboxQuery(metadata={"mark": mark, f"k{text}": f"{text}x"})) == [], text
        assert ids(SandboxQuery(metadata={"mark": mark, "kmissing": ""})) == []
        assert sandbox.get_info().metadata == {"mark": mark, **{f"k{text}": text for text in ODD}}


@pytest.mark.documented("Sandbox.list")
@pytest.mark.usefixtures("server_env", "transport")
def test_every_condition_alone_and_together() -> None:
    mark = {"mark": uuid4().hex}
    with made(3, **mark) as (first, second, third):
        second.pause()
        starts = [sandbox.get_info().started_at for sandbox in (first, second, third)]
        a, b, c = (sandbox.sandbox_id for sandbox in (first, second, third))
        assert ids(SandboxQuery(metadata=mark), order="asc") == [a, c]
        assert ids(SandboxQuery(metadata=mark, state=BOTH), order="asc") == [a, b, c]
        assert ids(SandboxQuery(metadata=mark, state=[SandboxState.PAUSED])) == [b]
        assert ids(SandboxQuery(metadata=mark, state=[SandboxState.RUNNING])) == [c, a]
        assert set(ids(SandboxQuery(template="base", state=BOTH))) >= {a, b, c}
        assert set(ids(SandboxQuery(started_after=starts[2]))) >= {c}
        assert a not in ids(SandboxQuery(started_after=starts[0] + timedelta(microseconds=1)))
        assert b in ids(SandboxQuery(state=[SandboxState.PAUSED]))
        after: dict[int, list[str]] = {0: [a, b, c], 1: [b, c], 2: [c]}
        for number, wanted in after.items():
            query = SandboxQuery(metadata=mark, state=BOTH, started_after=starts[number], template="base")
            assert ids(query, order="asc") == wanted
        later = datetime.now(timezone.utc) + timedelta(hours=1)
        for query in (
            SandboxQuery(metadata=mark, state=BOTH, started_after=later),
            SandboxQuery(metadata=mark, state=BOTH, template="no-such-template"),
            SandboxQuery(metadata={**mark, "n": "0"}, state=[SandboxState.PAUSED]),
            SandboxQuery(metadata={**mark, "n": "9"}, state=BOTH),
        ):
            assert ids(query) == []
        paused = Sandbox.list(query=SandboxQuery(metadata=mark, state=BOTH))[1]
        assert (paused.sandbox_id, paused.state) == (b, SandboxState.PAUSED)


@pytest.mark.usefixtures("server_env", "transport")
def test_an_offset_is_not_needed_to_be_utc() -> None:
    mark = {"mark": uuid4().hex}
    with made(1, **mark) as (sandbox,):
        start = sandbox.get_info().started_at.astimezone(timezone(timedelta(hours=-5)))
        assert ids(SandboxQuery(metadata=mark, started_after=start)) == [sandbox.sandbox_id]
        assert ids(SandboxQuery(metadata=mark, started_after=start + timedelta(microseconds=1))) == []
        with pytest.raises(InvalidArgumentException):
            ids(SandboxQuery(started_after=start.replace(tzinfo=None)))


@pytest.mark.documented("Sandbox.list")
@pytest.mark.usefixtures("server_env", "transport")
def test_pages_in_both_orders_from_any_token() -> None:
    mark = {"mark": uuid4().hex}
    query = SandboxQuery(metadata=mark)
    with made(5, **mark) as sandboxes:
        ascending = [sandbox.sandbox_id for sandbox in sandboxes]
        for order, wanted in (("asc", ascending), ("desc", ascending[::-1])):
            assert ids(query, order=order) == wanted
            for limit in (1, 2, 4, 5, 100):
                listing = Sandbox.list(query=query, limit=limit, order=order)  # type: ignore[arg-type]
                pages = []
                while listing.has_next:
                    token = listing.next_token
                    pages.append([info.sandbox_id for info in listing.next_items()])
                    assert (
                        ids(query, order=order, next_token=token, limit=limit)[: len(pages[-1])] == pages[-1]
                    )
                assert [page for page in pages if page] == [
                    wanted[start : start + limit] for start in range(0, 5, limit)
                ]
                assert listing.next_items() == []
        assert ids(query) == ascending[::-1]
        for options in ({"limit": 0}, {"limit": 101}, {"order": "up"}, {"next_token": "garbage"}):
            with pytest.raises(InvalidArgumentException):
                ids(query, **options)


@pytest.mark.documented("Sandbox.list")
@pytest.mark.usefixtures("server_env", "transport")
def test_many_sandboxes_are_one_sequence() -> None:
    mark = {"mark": uuid4().hex}
    with made(30, **mark) as sandboxes:
        listing = Sandbox.list(query=SandboxQuery(metadata=mark), limit=7, order="asc")
        assert [info.sandbox_id for info in listing] == [sandbox.sandbox_id for sandbox in sandboxes]
        assert len(listing) == 30
        assert listing[-1].metadata["n"] == "29"
        assert [info.metadata["n"] for info in listing[10:13]] == ["10", "11", "12"]


@pytest.mark.documented("Sandbox.list")
@pytest.mark.usefixtures("server_env", "transport")
def test_pages_go_on_where_they_were_though_sandboxes_come_and_go() -> None:
    mark = {"mark": uuid4().hex}
    with made(4, **mark) as sandboxes:
        listing = Sandbox.list(query=SandboxQuery(metadata=mark), limit=2, order="asc")
        assert [info.metadata["n"] for info in listing.next_items()] == ["0", "1"]
        sandboxes[1].kill()
        sandboxes[2].kill()
        with Sandbox.create(metadata={**mark, "n": "late"}):
            rest = []
            while listing.has_next:
                rest += [info.metadata["n"] for info in listing.next_items()]
            assert rest == ["3", "late"]
