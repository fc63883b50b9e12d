"""Watching in real sandboxes: what commands and uploads do is told, in order and with nothing lost."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox_local import LocalServer
from tests.raw_client import RawClient, Sandbox


@pytest.fixture
def box(server: LocalServer) -> Iterator[Sandbox]:
    with RawClient.of(server).create() as sandbox:
        yield sandbox


def call(box: Sandbox, method: str, **message: Any) -> dict[str, Any]:
    response = box.ask("POST", f"/filesystem.Filesystem/{method}", json=message)
    assert response.status_code == 200, response.text
    return dict(response.json())


def told(box: Sandbox, watcher_id: str) -> list[tuple[str, str]]:
    events = call(box, "GetWatcherEvents", watcherId=watcher_id).get("events", [])
    return [(event["type"].removeprefix("EVENT_TYPE_"), event["name"]) for event in events]


def test_what_commands_and_uploads_do_is_told(box: Sandbox) -> None:
    watcher = call(box, "CreateWatcher", path="", recursive=True)["watcherId"]
    assert watcher.startswith("w")
    box.run("mkdir -p a/b")
    assert told(box, watcher) == [("CREATE", "a"), ("CREATE", "a/b")]
    box.run("echo x > a/b/f && mv a/b/f a/g && rm a/g")
    assert told(box, watcher) == [
        ("CREATE", "a/b/f"),
        ("WRITE", "a/b/f"),
        ("RENAME", "a/b/f"),
        ("CREATE", "a/g"),
        ("REMOVE", "a/g"),
    ]
    headers = {"content-type": "application/octet-stream"}
    box.ask("POST", "/files", params={"path": "up"}, data=b"x", headers=headers)
    assert ("CREATE", "up") in (events := told(box, watcher))
    assert ("WRITE", "up") in events
    call(box, "RemoveWatcher", watcherId=watcher)
    assert (
        box.ask("POST", "/filesystem.Filesystem/RemoveWatcher", json={"watcherId": watcher}).status_code
        == 404
    )


@pytest.mark.parametrize("path", ["/usr/local/lib", "/etc", "/tmp"])
def test_every_file_system_of_the_box_can_be_watched(box: Sandbox, path: str) -> None:
    watcher = call(box, "CreateWatcher", path=path)["watcherId"]
    box.run(f"touch {path}/new; rm {path}/new", user="root")
    assert ("CREATE", "new") in (events := told(box, watcher))
    assert events[-1] == ("REMOVE", "new")


def test_ten_thousand_events_in_order_and_none_lost(box: Sandbox) -> None:
    """G30: while nobody fetches."""
    watcher = call(box, "CreateWatcher", path="")["watcherId"]
    box.run("seq -w 10000 | xargs -n 500 touch")
    created = [name for kind, name in told(box, watcher) if kind == "CREATE"]
    assert created == [f"{i:05}" for i in range(1, 10_001)]


def test_a_stream_of_events(server: LocalServer) -> None:
    with RawClient.of(server).create() as sandbox:
        payload = json.dumps({"path": "~", "includeEntry": True}).encode()
        response = sandbox.ask(
            "POST",
            "/filesystem.Filesystem/WatchDir",
            data=struct.pack(">BI", 0, len(payload)) + payload,
            headers={"content-type": "application/connect+json"},
            stream=True,
        )

        def message() -> tuple[int, dict[str, Any]]:
            flags, length = struct.unpack(">BI", response.raw.read(5))
            return flags, json.loads(response.raw.read(length))

        with response:
            assert message() == (0, {"start": {}})
            sandbox.run("mkdir d")
            event = message()[1]["filesystem"]
            assert (event["name"], event["type"]) == ("d", "EVENT_TYPE_CREATE")
            assert event["entry"]["type"] == "FILE_TYPE_DIRECTORY"
            sandbox.client.ask("DELETE", sandbox.path)
            flags, end = message()
            assert flags == 2
            assert end["error"]["code"] == "unavailable"
            assert "was not found" in end["error"]["message"]
