"""The official package on files and watches."""

from __future__ import annotations

import io
from typing import Any

import pytest

from tests.interop.both import Watched, both, collected, e2b, got, newer, pieces

pytestmark = pytest.mark.usefixtures("server_env")

BLOB = bytes(range(256)) * 5000


@both()
async def test_files_are_written_in_every_form(sandbox: Any) -> None:
    files = sandbox.files
    info = await got(files.write("deep/down/text.txt", "héllo"))
    assert (info.name, info.path, info.type) == (
        "text.txt",
        "/home/user/deep/down/text.txt",
        e2b.FileType.FILE,
    )
    for name, data, options in (
        ("bytes", BLOB, {}),
        ("octets", BLOB, {"use_octet_stream": True}),
        ("packed", BLOB, {"gzip": True}),
        ("file", io.BytesIO(BLOB), {}),
    ):
        await got(files.write(name, data, **options))
        assert bytes(await got(files.read(name, format="bytes"))) == BLOB, name
    many = await got(files.write_files([{"path": f"many/{n}", "data": str(n)} for n in range(5)]))
    assert [one.path for one in many] == [f"/home/user/many/{n}" for n in range(5)]
    assert await got(files.write_files([])) == []


@newer
@both()
async def test_a_file_is_written_piece_by_piece(sandbox: Any) -> None:
    await got(sandbox.files.write("pieces", pieces(sandbox, [BLOB[:1000], BLOB[1000:]])))
    assert bytes(await got(sandbox.files.read("pieces", format="bytes"))) == BLOB


@both()
async def test_files_are_read_in_every_form(sandbox: Any) -> None:
    files = sandbox.files
    await got(files.write("text", "héllo"))
    await got(files.write("blob", BLOB))
    assert await got(files.read("text")) == "héllo"
    assert await got(files.read("/home/user/text")) == "héllo"
    assert await got(files.read("~/text")) == "héllo"
    assert await got(files.read("text", gzip=True)) == "héllo"
    assert bytes(await got(files.read("text", format="bytes"))) == "héllo".encode()
    assert await collected(await got(files.read("blob", format="stream"))) == BLOB
    with pytest.raises(e2b.FileNotFoundException):
        await got(files.read("nothing"))
    with pytest.raises(e2b.InvalidArgumentException):
        await got(files.read("/tmp"))
    with pytest.raises(e2b.AuthenticationException):
        await got(files.read("text", user="nobodyknown"))


@both()
async def test_metadata_stays_with_a_file(sandbox: Any) -> None:
    files = sandbox.files
    info = await got(files.write("meta", "x", metadata={"Author": "me", "kind": "a b"}))
    assert info.metadata == {"author": "me", "kind": "a b"}
    assert (await got(files.get_info("meta"))).metadata == {"author": "me", "kind": "a b"}
    await got(files.write("meta", "y"))
    assert not (await got(files.get_info("meta"))).metadata


@both()
async def test_users_decide_homes_and_owners(sandbox: Any) -> None:
    files = sandbox.files
    info = await got(files.write("mine", "root's", user="root"))
    assert info.path == "/root/mine"
    assert (await got(files.get_info("/root/mine", user="root"))).owner == "root"
    assert await got(files.read("mine", user="root")) == "root's"
    assert await got(files.exists("mine")) is False


@both()
async def test_entries_tell_all(sandbox: Any) -> None:
    files = sandbox.files
    await got(files.write("dir/file", "12345"))
    await got(sandbox.commands.run("ln -s dir/file link; ln -s nowhere broken; chmod 640 dir/file"))
    entry = await got(files.get_info("dir/file"))
    assert (entry.name, entry.type, entry.path) == ("file", e2b.FileType.FILE, "/home/user/dir/file")
    assert (entry.size, entry.mode, entry.permissions) == (5, 0o640, "-rw-r-----")
    assert (entry.owner, entry.group) == ("user", "user")
    assert entry.modified_time.year > 2000
    link = await got(files.get_info("link"))
    assert (link.type, link.symlink_target) == (e2b.FileType.SYMLINK, "/home/user/dir/file")
    assert (await got(files.get_info("dir"))).type == e2b.FileType.DIR
    with pytest.raises(e2b.FileNotFoundException):
        await got(files.get_info("nothing"))


@both()
async def test_directories_are_made_listed_and_removed(sandbox: Any) -> None:
    files = sandbox.files
    assert await got(files.make_dir("a/b/c")) is True
    assert await got(files.make_dir("a/b/c")) is False
    await got(files.write("a/file", ""))
    assert [entry.name for entry in await got(files.list("a"))] == ["b", "file"]
    deep = await got(files.list("a", depth=3))
    assert [entry.path for entry in deep] == [f"/home/user/a/{name}" for name in ("b", "b/c", "file")]
    assert (await got(files.rename("a/file", "new/place"))).path == "/home/user/new/place"
    assert await got(files.exists("a/file")) is False
    await got(files.remove("a"))
    await got(files.remove("a"))
    assert await got(files.exists("a")) is False
    with pytest.raises(e2b.FileNotFoundException):
        await got(files.list("a"))
    with pytest.raises(e2b.InvalidArgumentException):
        await got(files.list("new/place"))
    with pytest.raises(e2b.FileNotFoundException):
        await got(files.rename("a", "b"))
    with pytest.raises(e2b.InvalidArgumentException):
        await got(files.make_dir("new/place"))


@both()
async def test_a_directory_is_watched(sandbox: Any) -> None:
    kinds, files = e2b.FilesystemEventType, sandbox.files
    await got(files.make_dir("watched"))
    watched = await Watched.start(sandbox, "watched")
    await got(files.write("watched/new", "x"))
    await watched.until("new", kinds.CREATE)
    await watched.until("new", kinds.WRITE)
    await got(files.rename("watched/new", "watched/other"))
    await watched.until("new", kinds.RENAME)
    await watched.until("other", kinds.CREATE)
    await got(sandbox.commands.run("chmod 600 watched/other"))
    await watched.until("other", kinds.CHMOD)
    await got(files.remove("watched/other"))
    await watched.until("other", kinds.REMOVE)
    await watched.stop()


@both()
async def test_a_tree_is_watched_with_entries(sandbox: Any) -> None:
    await got(sandbox.files.make_dir("tree/old"))
    watched = await Watched.start(sandbox, "tree", recursive=True, include_entry=True)
    await got(sandbox.files.make_dir("tree/new"))
    await watched.until("new", e2b.FilesystemEventType.CREATE)
    await got(sandbox.files.write("tree/new/file", "x"))
    event = await watched.until("new/file", e2b.FilesystemEventType.CREATE)
    if event.entry is not None:
        assert event.entry.path == "/home/user/tree/new/file"
    written = await watched.until("new/file", e2b.FilesystemEventType.WRITE)
    assert written.entry.path == "/home/user/tree/new/file"
    await watched.stop()


@both()
async def test_what_is_no_directory_is_not_watched(sandbox: Any) -> None:
    with pytest.raises(e2b.FileNotFoundException):
        await Watched.start(sandbox, "nothing")
    with pytest.raises(e2b.InvalidArgumentException):
        await Watched.start(sandbox, "/etc/hosts")


@both()
async def test_a_full_disk_is_told(sandbox: Any) -> None:
    free = "$(df --output=avail -B1 /dev/shm | tail -1)"
    await got(sandbox.commands.run(f"fallocate -l {free} /dev/shm/all"))
    with pytest.raises(e2b.NotEnoughSpaceException):
        await got(sandbox.files.write("/dev/shm/more", b"x" * (4 << 20)))
