"""Watching over the real file worker: what happens is told in order, once, and by the right name."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from sandbox_sync_rpc import filesystem_pb2 as pb

from sandbox_local.envd import watch as watch_module
from sandbox_local.envd.boxfiles import RpcFiles
from sandbox_local.envd.watch import WatchService
from sandbox_local.http import Headers
from sandbox_local.rpc import Code, Context, RpcError
from tests.descriptors import none_left_open
from tests.unit.envd_standin import StandInBox

PLAIN = Context.of(Headers(), None)
KINDS = {
    pb.EVENT_TYPE_CREATE: "create",
    pb.EVENT_TYPE_WRITE: "write",
    pb.EVENT_TYPE_REMOVE: "remove",
    pb.EVENT_TYPE_RENAME: "rename",
    pb.EVENT_TYPE_CHMOD: "chmod",
}


class Use:
    """A service over a stand-in box, and short ways to use it."""

    def __init__(self, box: StandInBox) -> None:
        self.box = box
        self.home = box.home
        self.service = WatchService(box, RpcFiles(box, "user"))

    async def create(self, path: str = "", **fields: Any) -> str:
        return (
            await self.service.create_watcher(pb.CreateWatcherRequest(path=path, **fields), PLAIN)
        ).watcher_id

    async def events(self, watcher_id: str) -> list[pb.FilesystemEvent]:
        request = pb.GetWatcherEventsRequest(watcher_id=watcher_id)
        return list((await self.service.get_watcher_events(request, PLAIN)).events)

    async def told(self, watcher_id: str) -> list[tuple[str, str]]:
        return [(KINDS[event.type], event.name) for event in await self.events(watcher_id)]

    async def remove(self, watcher_id: str) -> None:
        await self.service.remove_watcher(pb.RemoveWatcherRequest(watcher_id=watcher_id), PLAIN)

    def stream(
        self, context: Context = PLAIN, path: str = "", **fields: Any
    ) -> AsyncGenerator[pb.WatchDirResponse, None]:
        return self.service.watch_dir(pb.WatchDirRequest(path=path, **fields), context)


def watching(directory: Path, test: Callable[[Use], Coroutine[Any, Any, Any]]) -> Any:
    async def main() -> Any:
        use = Use(StandInBox(directory))
        try:
            return await asyncio.wait_for(test(use), 50)
        finally:
            use.service.close()
            await use.box.close()
            await asyncio.sleep(0)  # transports close in the next round

    with none_left_open():
        return asyncio.run(main())


async def code_of(call: Coroutine[Any, Any, Any] | Any) -> Code:
    with pytest.raises(RpcError) as caught:
        await call
    return caught.value.code


def test_each_change_is_told_by_its_kind_and_name(tmp_path: Path) -> None:
    async def test(use: Use) -> None:
        (use.home / "there").write_text("")
        (use.home / "sub").mkdir()
        watcher = await use.create()
        assert await use.told(watcher) == []
        (use.home / "new").write_text("content")
        assert await use.told(watcher) == [("create", "new"), ("write", "new")]
        (use.home / "there").chmod(0o600)
        assert await use.told(watcher) == [("chmod", "there")]
        (use.home / "there").rename(use.home / "elsewhere")
        assert await use.told(watcher) == [("rename", "there"), ("create", "elsewhere")]
        (use.home / "elsewhere").unlink()
        assert await use.told(watcher) == [("remove", "elsewhere")]
        (use.home / "sub/below").write_text("not recursive")
        use.home.chmod(0o700)
        assert await use.told(watcher) == [("chmod", ".")]
        (use.home / "new").rename(tmp_path / "outside")
        (tmp_path / "outside").rename(use.home / "back")
        assert await use.told(watcher) == [("rename", "new"), ("create", "back")]
        assert await use.told(watcher) == []

    watching(tmp_path, test)


def test_the_end_of_the_directory_is_told_and_ends_nothing(tmp_path: Path) -> None:
    async def test(use: Use) -> None:
        (use.home / "d").mkdir()
        watcher = await use.create("d")
        (use.home / "d").rmdir()
        assert await use.told(watcher) == [("remove", ".")]
        (use.home / "d").mkdir()
        assert await use.told(watcher) == []

    watching(tmp_path, test)


def test_recursion_covers_what_is_there_and_what_comes(tmp_path: Path) -> None:
    async def test(use: Use) -> None:
        (use.home / "a/b").mkdir(parents=True)
        watcher = await use.create(recursive=True)
        (use.home / "a/b/f").touch()
        assert await use.told(watcher) == [("create", "a/b/f")]
        (use.home / "a/b/new").mkdir()
        assert await use.told(watcher) == [("create", "a/b/new")]
        os.mknod(use.home / "a/b/new/f")
        assert await use.told(watcher) == [("create", "a/b/new/f")]
        shutil.rmtree(use.home / "a/b")
        assert sorted(await use.told(watcher)) == [
            ("remove", name) for name in ("a/b", "a/b/f", "a/b/new", "a/b/new/f")
        ]

    watching(tmp_path, test)


def test_a_moved_directory_has_its_new_name_and_one_moved_away_has_none(tmp_path: Path) -> None:
    async def test(use: Use) -> None:
        (use.home / "a/b").mkdir(parents=True)
        watcher = await use.create(recursive=True)
        (use.home / "a").rename(use.home / "c")
        assert await use.told(watcher) == [("rename", "a"), ("create", "c")]
        os.mknod(use.home / "c/b/f")
        assert await use.told(watcher) == [("create", "c/b/f")]
        (use.home / "c").rename(tmp_path / "gone")
        assert await use.told(watcher) == [("rename", "c")]
        os.mknod(tmp_path / "gone/b/g")
        (tmp_path / "gone").rename(use.home / "back")
        assert await use.told(watcher) == [("create", "back")]
        os.mknod(use.home / "back/b/h")
        assert await use.told(watcher) == [("create", "back/b/h")]

    watching(tmp_path, test)


def test_nothing_made_in_a_new_directory_is_missed_or_told_twice(tmp_path: Path) -> None:
    async def test(use: Use) -> None:
        watcher = await use.create(recursive=True)
        wanted = []
        for i in range(100):
            top = use.home / f"d{i}"
            (top / "x/y").mkdir(parents=True)
            for name in ("f", "x/f", "x/y/f"):
                os.mknod(top / name)
            wanted += [f"d{i}{name}" for name in ("", "/x", "/x/y", "/f", "/x/f", "/x/y/f")]
        created = [name for kind, name in await use.told(watcher) if kind == "create"]
        assert sorted(created) == sorted(wanted)
        for i in range(100):
            assert created.index(f"d{i}") < created.index(f"d{i}/x") < created.index(f"d{i}/x/y/f")

    watching(tmp_path, test)


def test_ten_thousand_events_in_order_and_none_lost(tmp_path: Path) -> None:
    """G30, the server's half."""

    async def test(use: Use) -> None:
        watcher = await use.create()
        for i in range(10_000):
            os.mknod(use.home / str(i))
        assert await use.told(watcher) == [("create", str(i)) for i in range(10_000)]

    watching(tmp_path, test)


def test_entries_come_with_what_can_still_be_described(tmp_path: Path) -> None:
    async def test(use: Use) -> None:
        plain, described = await use.create(), await use.create(include_entry=True)
        (use.home / "f").write_text("12345")
        (use.home / "f").rename(use.home / "g")
        assert not any(event.HasField("entry") for event in await use.events(plain))
        events = await use.events(described)
        (use.home / "g").chmod(0o600)
        (use.home / "g").unlink()
        events += await use.events(described)
        with_entry = {
            (KINDS[event.type], event.name, event.entry.size) for event in events if event.HasField("entry")
        }
        assert ("create", "g", 5) in with_entry
        assert {kind for kind, _, _ in with_entry} <= {"create", "chmod", "write"}

    watching(tmp_path, test)


def test_hostile_names_are_told(tmp_path: Path) -> None:
    async def test(use: Use) -> None:
        watcher = await use.create(recursive=True)
        names = [b"new\nline", b"caf\xe9", b"x" * 255, b'"{}']
        for name in names:
            os.mkdir(os.fsencode(use.home) + b"/" + name)
        assert [name for _, name in await use.told(watcher)] == [
            name.decode("utf-8", "replace") for name in names
        ]

    watching(tmp_path, test)


def test_a_link_is_watched_where_it_leads_but_not_below(tmp_path: Path) -> None:
    async def test(use: Use) -> None:
        (use.home / "d").mkdir()
        (use.home / "other").mkdir()
        (use.home / "d/link").symlink_to("../other")
        (use.home / "l").symlink_to("d")
        for recursive in (False, True):
            watcher = await use.create("l", recursive=recursive)
            os.mknod(use.home / f"d/f{recursive}")
            os.mknod(use.home / f"other/f{recursive}")
            assert await use.told(watcher) == [("create", f"f{recursive}")]

    watching(tmp_path, test)


def test_a_stream_begins_with_start_and_tells_as_it_happens(tmp_path: Path) -> None:
    async def test(use: Use) -> None:
        async with aclosing(use.stream()) as stream:
            assert (await anext(stream)).WhichOneof("event") == "start"
            for i in range(3):
                os.mknod(use.home / str(i))
                event = (await anext(stream)).filesystem
                assert (KINDS[event.type], event.name) == ("create", str(i))
        headers = Context.of(Headers({"keepalive-ping-interval": "1"}), None)
        async with aclosing(use.stream(headers)) as stream:
            await anext(stream)
            assert (await anext(stream)).WhichOneof("event") == "keepalive"
            os.mknod(use.home / "after")
            assert (await anext(stream)).filesystem.name == "after"

    watching(tmp_path, test)


@pytest.mark.parametrize(
    ("path", "code"),
    [("missing", Code.NOT_FOUND), ("file", Code.INVALID_ARGUMENT), ("~root", Code.INVALID_ARGUMENT)],
)
def test_what_cannot_be_watched(tmp_path: Path, path: str, code: Code) -> None:
    async def test(use: Use) -> None:
        (use.home / "file").write_text("")
        assert await code_of(anext(use.stream(path=path))) is code
        assert await code_of(use.create(path)) is code

    watching(tmp_path, test)


def test_an_unknown_watcher_is_not_found(tmp_path: Path) -> None:
    async def test(use: Use) -> None:
        watcher = await use.create()
        await use.remove(watcher)
        for watcher_id in (watcher, "wnothing", ""):
            assert await code_of(use.events(watcher_id)) is Code.NOT_FOUND
            assert await code_of(use.remove(watcher_id)) is Code.NOT_FOUND

    watching(tmp_path, test)


def test_an_unknown_user_is_unauthenticated(tmp_path: Path) -> None:
    nobody = Context.of(
        Headers({"authorization": "Basic " + base64.b64encode(b"nobody-here:").decode()}), None
    )

    async def test(use: Use) -> None:
        watcher = await use.create()
        service = use.service
        for call in (
            anext(use.stream(nobody)),
            service.create_watcher(pb.CreateWatcherRequest(), nobody),
            service.get_watcher_events(pb.GetWatcherEventsRequest(watcher_id=watcher), nobody),
            service.remove_watcher(pb.RemoveWatcherRequest(watcher_id=watcher), nobody),
        ):
            assert await code_of(call) is Code.UNAUTHENTICATED

    watching(tmp_path, test)


def test_the_process_of_a_watch_ends_with_it(tmp_path: Path) -> None:
    """G30: a watcher that is dropped is freed."""

    def watchers(use: Use) -> int:
        """How many inotify instances the worker's descendants have."""
        count = 0
        for pid in os.listdir("/proc"):
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if str(tmp_path).encode() in command:
                    fds = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
                    count += "anon_inode:inotify" in fds
            except OSError:
                continue
        return count

    async def test(use: Use) -> None:
        watcher = await use.create()
        stream = use.stream()
        await anext(stream)
        assert watchers(use) == 2
        await use.remove(watcher)
        await stream.aclose()
        while watchers(use):
            await asyncio.sleep(0.01)

    watching(tmp_path, test)


def test_watches_are_bounded_in_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "_MAX_WATCHES", 3)

    async def test(use: Use) -> None:
        watchers = [await use.create() for _ in range(3)]
        assert await code_of(use.create()) is Code.RESOURCE_EXHAUSTED
        assert await code_of(anext(use.stream())) is Code.RESOURCE_EXHAUSTED
        await use.remove(watchers[0])
        assert await code_of(use.create("missing")) is Code.NOT_FOUND
        await use.create()

    watching(tmp_path, test)


def test_a_watcher_nobody_fetches_from_fails_at_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "_MAX_COLLECTED", 1000)

    async def test(use: Use) -> None:
        watcher = await use.create()
        for i in range(500):
            os.mknod(use.home / str(i))
        kept = await use.told(watcher)
        assert kept == [("create", str(i)) for i in range(len(kept))]
        assert 50 < len(kept) < 500
        for _ in range(2):
            with pytest.raises(RpcError, match="lost") as caught:
                await use.events(watcher)
            assert caught.value.code is Code.INTERNAL
        await use.remove(watcher)

    watching(tmp_path, test)


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        b"[]\n",
        b'{"name": 1, "type": "create"}\n',
        b'{"name": "x", "type": "?"}\n',
        b"{" * 10**6,
    ],
)
def test_a_watcher_that_tells_nonsense_is_an_error(tmp_path: Path, line: bytes) -> None:
    async def test(use: Use) -> None:
        watcher = await use.create()
        use.service._collectors[watcher]._watch._reader.feed_data(line)
        assert await code_of(use.events(watcher)) is Code.INTERNAL

    watching(tmp_path, test)


def test_the_end_of_the_box_is_unavailable(tmp_path: Path) -> None:
    async def test(use: Use) -> None:
        watcher, stream = await use.create(), use.stream()
        await anext(stream)
        use.box.ended.set_result("over")
        use.service.close()
        assert await code_of(anext(stream)) is Code.UNAVAILABLE
        assert await code_of(use.create()) is Code.UNAVAILABLE
        assert await code_of(use.events(watcher)) is Code.UNAVAILABLE

    watching(tmp_path, test)


def test_a_watcher_that_is_killed_says_so(tmp_path: Path) -> None:
    async def test(use: Use) -> None:
        watcher = await use.create()
        stream = use.stream()
        await anext(stream)
        for pid in os.listdir("/proc"):
            try:
                if (
                    "anon_inode:inotify"
                    in [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
                    and str(tmp_path).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
                ):
                    os.kill(int(pid), 9)
            except OSError:
                continue
        assert await code_of(use.events(watcher)) is Code.INTERNAL
        assert await code_of(anext(stream)) is Code.INTERNAL

    watching(tmp_path, test)
