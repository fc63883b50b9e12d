"""What differs between two servers is found, whatever it is, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from sandbox_local import LocalServer
from tests.fidelity import __main__ as command
from tests.fidelity.compare import rounds, unlike
from tests.fidelity.meddler import Change, Passing, frames, meddling
from tests.fidelity.player import Player
from tests.fidelity.step import load

NAMES = {"create", "detail", "first page", "download", "entry of /tmp", "no key", "standard error"}
STEPS = [step for step in load() if step.name in NAMES | {"unknown sandbox", "upload of bytes"}]


def changed(path: str, **changes: Any) -> Change:
    """Change the status, a header field, or a text in the body of the answers to one path."""

    def change(passing: Passing) -> Passing:
        if path not in passing.path:
            return passing
        old, new = changes.get("text", (b"", b""))
        assert old in passing.body, "there is something to change"
        return passing._replace(
            status=changes.get("status", passing.status),
            headers={
                name: changes.get(name, value)
                for name, value in passing.headers.items()
                if changes.get(name, value)
            },
            body=passing.body.replace(old, new, 1),
        )

    return change


def reordered(*order: int) -> Change:
    """Let events of a command through in another order, or not all of them."""

    def change(passing: Passing) -> Passing:
        if "Start" not in passing.path:
            return passing
        come = frames(passing.body)
        assert len(come) == 4
        return passing._replace(body=b"".join(come[place] for place in order))

    return change


@contextmanager
def compared(server: LocalServer, change: Change) -> Iterator[list[str]]:
    with (
        meddling(server.url, change) as url,
        closing(Player(server.url, server.api_key)) as one,
        closing(Player(url, server.api_key)) as other,
    ):
        yield [found for each in rounds(STEPS, [one, other]) if (found := each.difference())]


def test_a_proxy_that_changes_nothing_is_not_found(server: LocalServer) -> None:
    with compared(server, lambda passing: passing) as found:
        assert found == []


@pytest.mark.parametrize(
    ("change", "step", "what"),
    [
        (changed("/v2/sandboxes?limit", status=206), "first page", "status: 200 on A, 206 on B"),
        (
            changed("hello.txt", **{"content-disposition": "attachment"}),
            "download",
            "headers.content-disposition",
        ),
        (
            changed("/v2/sandboxes?limit", **{"x-next-token": ""}),
            "first page",
            "headers.x-next-token: only A",
        ),
        (
            changed("Stat", text=(b'"mode":511', b'"mode":493')),
            "entry of /tmp",
            "body.entry.mode: 511 on A, 493 on B",
        ),
        (
            changed("Stat", text=(b'"mode":511', b'"mode":"511"')),
            "entry of /tmp",
            "body.entry.mode: 511 on A, '511'",
        ),
        (changed("Stat", text=(b'"mode":511,', b"")), "entry of /tmp", "body.entry.mode: only A has it"),
        (
            changed("/health", text=(b"was not found", b"is not here")),
            "unknown sandbox",
            "words.was not found: True",
        ),
        (reordered(0, 2, 3), "standard error", "body[1]"),
        (reordered(0, 2, 1, 3), "standard error", "body[1]"),
        (reordered(0, 1, 2), "standard error", "body[3]"),
    ],
)
def test_each_change_is_found_where_it_is(server: LocalServer, change: Change, step: str, what: str) -> None:
    with compared(server, change) as found:
        assert len(found) == 1, found
        assert found[0].startswith(f"{step} (")
        assert what in found[0]


def test_a_server_that_breaks_off_is_found(server: LocalServer) -> None:
    def cut(passing: Passing) -> Passing:
        if "Stat" in passing.path:
            raise ConnectionResetError
        return passing

    with compared(server, cut) as found:
        assert len(found) == 1, found
        assert "entry of /tmp (7 EntryInfo): B gave no answer" in found[0]


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ({"a": 1}, {"a": 1}, None),
        ({"a": 1, "b": 2}, {"b": 3, "a": 1}, "b: 2 on A, 3 on B"),
        ({"a": [1, 2]}, {"a": [1]}, "a[1]: only A has 2"),
        ({"a": [1]}, {"a": [1, 2]}, "a[1]: only B has 2"),
        ({"a": {"b": 1}}, {"a": {}}, "a.b: only A has it"),
        ({"a": True}, {"a": 1}, "a: True on A, 1 on B"),
        ([], {}, ": [] on A, {} on B"),
    ],
)
def test_the_first_difference_is_told_with_its_path(one: object, other: object, found: str | None) -> None:
    assert unlike("", one, other) == found


def test_the_command_line_compares_and_judges(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("E2B_API_KEY_A", server.api_key)
    monkeypatch.setenv("E2B_API_KEY_B", "wrong")
    few = ["--only", "f_none"]
    assert command.main([server.url, *few]) == 0
    assert command.main([f"{server.url},{server.url}", server.url, *few]) == 0
    assert "0 steps" in capsys.readouterr().out
