"""The Filesystem service over the real file worker, row by row of its contract."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from sandbox_sync_rpc import filesystem_pb2 as pb

from sandbox_local.envd.boxfiles import RpcFiles
from sandbox_local.envd.filesystem import FilesystemService
from sandbox_local.http import Headers
from sandbox_local.rpc import Code, Context, RpcError
from tests.descriptors import none_left_open
from tests.unit.envd_standin import StandInBox

PLAIN = Context.of(Headers(), None)

Use = Callable[[FilesystemService], Coroutine[Any, Any, Any]]


def with_service(directory: Path, use: Use) -> Any:
    """What `use` returns of a service whose user "user" has the home `directory`/home."""

    async def main() -> Any:
        box = StandInBox(directory)
        try:
            return await asyncio.wait_for(use(FilesystemService(RpcFiles(box, "user"))), 30)
        finally:
            await box.close()

    with none_left_open():
        return asyncio.run(main())


def call(service: FilesystemService, method: str, context: Context = PLAIN, /, **fields: Any) -> Any:
    request = getattr(pb, f"{method}Request")(**fields)
    return service.handlers()[method](request, context)


def make_home(directory: Path) -> Path:
    """Something of every kind, made before the worker starts."""
    home = directory / "home"
    (home / "dir/sub").mkdir(parents=True)
    (home / "file").write_text("12345")
    (home / "dir/a").write_text("")
    (home / "loop").symlink_to("loop")
    (home / "link").symlink_to("dir")
    return home


@pytest.mark.parametrize(
    ("method", "fields", "code"),
    [
        ("Stat", {"path": "missing"}, Code.NOT_FOUND),
        ("Stat", {"path": "file/below"}, Code.INTERNAL),
        ("Stat", {"path": "x" * 5000}, Code.INVALID_ARGUMENT),
        ("MakeDir", {"path": "dir"}, Code.ALREADY_EXISTS),
        ("MakeDir", {"path": ""}, Code.ALREADY_EXISTS),
        ("MakeDir", {"path": "file"}, Code.INVALID_ARGUMENT),
        ("MakeDir", {"path": "file/below"}, Code.INTERNAL),
        ("Move", {"source": "missing", "destination": "x"}, Code.NOT_FOUND),
        ("Move", {"source": "link", "destination": "dir"}, Code.INTERNAL),
        ("Move", {"source": "file", "destination": "/proc/x"}, Code.INTERNAL),
        ("ListDir", {"path": "missing"}, Code.NOT_FOUND),
        ("ListDir", {"path": "file"}, Code.INVALID_ARGUMENT),
        ("ListDir", {"path": "loop"}, Code.FAILED_PRECONDITION),
        ("Remove", {"path": "/proc/self/status"}, Code.INTERNAL),
        *(
            (method, {"path": "~root"}, Code.INVALID_ARGUMENT)
            for method in ("Stat", "MakeDir", "ListDir", "Remove")
        ),
        *(
            (method, {"path": "a\0b"}, Code.INVALID_ARGUMENT)
            for method in ("Stat", "MakeDir", "ListDir", "Remove")
        ),
        ("Move", {"source": "~root/x", "destination": "x"}, Code.INVALID_ARGUMENT),
        ("Move", {"source": "file", "destination": "~root/x"}, Code.INVALID_ARGUMENT),
    ],
)
def test_failures_have_their_documented_codes(
    tmp_path: Path, method: str, fields: dict[str, str], code: Code
) -> None:
    async def use(service: FilesystemService) -> Code:
        with pytest.raises(RpcError) as caught:
            await call(service, method, **fields)
        assert caught.value.message
        return caught.value.code

    home = make_home(tmp_path)
    assert with_service(tmp_path, use) is code
    assert (home / "dir/a").exists()
    assert (home / "file").exists()


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("Stat", {"path": ""}),
        ("MakeDir", {"path": "new"}),
        ("Move", {"source": "file", "destination": "new"}),
        ("ListDir", {"path": ""}),
        ("Remove", {"path": "file"}),
    ],
)
def test_an_unknown_user_is_unauthenticated(tmp_path: Path, method: str, fields: dict[str, str]) -> None:
    authorization = "Basic " + base64.b64encode(b"nobody-here:").decode()

    async def use(service: FilesystemService) -> Code:
        with pytest.raises(RpcError) as caught:
            await call(service, method, Context.of(Headers({"authorization": authorization}), None), **fields)
        return caught.value.code

    make_home(tmp_path)
    assert with_service(tmp_path, use) is Code.UNAUTHENTICATED


def test_an_entry_carries_all_there_is(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    (home / "file").chmod(0o640)
    os.utime(home / "file", ns=(1, 1_700_000_000_123_456_789))

    async def use(service: FilesystemService) -> tuple[pb.EntryInfo, pb.EntryInfo]:
        file, link = [(await call(service, "Stat", path=path)).entry for path in ("file", "~/link")]
        return file, link

    file, link = with_service(tmp_path, use)
    assert file == pb.EntryInfo(
        name="file",
        type=pb.FILE_TYPE_FILE,
        path=str(home / "file"),
        size=5,
        mode=0o640,
        permissions="-rw-r-----",
        owner="user",
        group="users",
        modified_time={"seconds": 1_700_000_000, "nanos": 123_456_789},
    )
    assert not file.HasField("symlink_target")
    assert (link.type, link.is_symlink, link.symlink_target) == (
        pb.FILE_TYPE_DIRECTORY,
        True,
        str(home / "dir"),
    )
    assert link.permissions == "Lrwxrwxrwx"


@pytest.mark.parametrize("seconds", [-(10**10), 10**10])
def test_times_of_any_size_can_be_told(tmp_path: Path, seconds: int) -> None:
    home = make_home(tmp_path)
    os.utime(home / "file", (seconds, seconds))

    async def use(service: FilesystemService) -> pb.EntryInfo:
        answer: pb.StatResponse = await call(service, "Stat", path="file")
        return answer.entry

    told = with_service(tmp_path, use).modified_time
    assert told.ToJsonString()
    assert told.seconds == int(os.stat(home / "file").st_mtime)


def test_a_listing_is_in_order_and_as_deep_as_asked(tmp_path: Path) -> None:
    make_home(tmp_path)

    async def use(service: FilesystemService) -> list[list[str]]:
        return [
            [entry.name for entry in (await call(service, "ListDir", **fields)).entries]
            for fields in (
                {"path": ""},
                {"path": "", "depth": 1},
                {"path": "", "depth": 2},
                {"path": "dir/sub"},
            )
        ]

    top = ["dir", "file", "link", "loop"]
    assert with_service(tmp_path, use) == [top, top, ["dir", "a", "sub", *top[1:]], []]


def test_a_large_listing_passes(tmp_path: Path) -> None:
    """G39, the server's half: fifty thousand entries."""
    many = make_home(tmp_path) / "many"
    many.mkdir()
    for i in range(50_000):
        os.close(os.open(many / f"{i:05}", os.O_CREAT))

    async def use(service: FilesystemService) -> list[str]:
        return [entry.name for entry in (await call(service, "ListDir", path="many")).entries]

    assert with_service(tmp_path, use) == [f"{i:05}" for i in range(50_000)]


def test_changes_are_made_and_answered(tmp_path: Path) -> None:
    home = make_home(tmp_path)

    async def use(service: FilesystemService) -> None:
        made = (await call(service, "MakeDir", path="new/deep")).entry
        assert (made.path, made.type) == (str(home / "new/deep"), pb.FILE_TYPE_DIRECTORY)
        moved = (await call(service, "Move", source="file", destination="new/deep/file")).entry
        assert (moved.path, moved.size) == (str(home / "new/deep/file"), 5)
        for _ in range(2):
            assert await call(service, "Remove", path="new") == pb.RemoveResponse()

    with_service(tmp_path, use)
    assert sorted(os.listdir(home)) == ["dir", "link", "loop"]


def test_the_end_of_the_box_is_unavailable(tmp_path: Path) -> None:
    async def use(service: FilesystemService) -> Code:
        service._files._box.ended.set_result("over")
        with pytest.raises(RpcError, match="was not found") as caught:
            await call(service, "Stat", path="")
        return caught.value.code

    make_home(tmp_path)
    assert with_service(tmp_path, use) is Code.UNAVAILABLE
