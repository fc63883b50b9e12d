"""What is known of files, directories and links, and what moves, makes and removes them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone

import pytest

from sandbox_sync import (
    AuthenticationException,
    FileNotFoundException,
    Filesystem,
    FileType,
    InvalidArgumentException,
    Sandbox,
    SandboxException,
)

HOME = "/home/user"


def test_every_field_of_a_file(sandbox: Sandbox) -> None:
    sandbox.files.write("f", "12345", metadata={"made": "here"})
    sandbox.commands.run("chmod 640 f; touch -d 2001-02-03T04:05:06.789Z f; sudo chgrp root f")
    info = sandbox.files.get_info("f")
    assert (info.name, info.path, info.type, info.size) == ("f", f"{HOME}/f", FileType.FILE, 5)
    assert (info.mode, info.permissions, info.owner, info.group) == (0o640, "-rw-r-----", "user", "root")
    assert info.modified_time == datetime(2001, 2, 3, 4, 5, 6, 789000, timezone.utc)
    assert info.symlink_target is None
    assert info.metadata == {"made": "here"}
    assert sandbox.files.list(".", depth=1)[-1] == info
    sandbox.files.write("f", "123456")
    assert abs(datetime.now(timezone.utc) - sandbox.files.get_info("f").modified_time) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("make", "kind", "mode", "permissions"),
    [
        ("touch x; chmod 4755 x", FileType.FILE, 0o755, "urwxr-xr-x"),
        ("touch x; chmod 2750 x", FileType.FILE, 0o750, "grwxr-x---"),
        ("touch x; chmod 0 x", FileType.FILE, 0, "----------"),
        ("mkdir x; chmod 1777 x", FileType.DIR, 0o777, "dtrwxrwxrwx"),
        ("mkdir x; chmod 700 x", FileType.DIR, 0o700, "drwx------"),
        ("mkfifo x; chmod 600 x", None, 0o600, "prw-------"),
        (
            "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"x\")'; chmod 755 x",
            None,
            0o755,
            "Srwxr-xr-x",
        ),
    ],
    ids=["set-uid", "set-gid", "no permissions", "sticky", "directory", "fifo", "socket"],
)
def test_kinds_and_permissions(
    sandbox: Sandbox, make: str, kind: FileType | None, mode: int, permissions: str
) -> None:
    sandbox.commands.run(make)
    info = sandbox.files.get_info("x")
    assert (info.type, info.mode, info.permissions) == (kind, mode, permissions)
    assert info in sandbox.files.list(".")


def test_owners_without_a_name_are_numbers(sandbox: Sandbox) -> None:
    sandbox.commands.run("touch x; sudo chown 1234:2345 x")
    info = sandbox.files.get_info("x")
    assert (info.owner, info.group) == ("1234", "2345")


@pytest.mark.parametrize(
    ("make", "mode", "target"),
    [
        ("touch t; chmod 640 t; ln -s t link", 0o640, f"{HOME}/t"),
        ("mkdir -m 750 t; ln -s t link", 0o750, f"{HOME}/t"),
        ("touch t; chmod 640 t; ln -s t t2; ln -s ./t2 link", 0o640, f"{HOME}/t"),
        ("ln -s nowhere link", 0, f"{HOME}/link"),
        ("ln -s link link", 0, f"{HOME}/link"),
        ("ln -s link other; ln -s other link", 0, f"{HOME}/link"),
    ],
    ids=["to a file", "to a directory", "to a link", "broken", "to itself", "in a circle"],
)
def test_links_are_told_of_themselves(sandbox: Sandbox, make: str, mode: int, target: str) -> None:
    sandbox.commands.run(make)
    info = sandbox.files.get_info("link")
    assert (info.name, info.path, info.type) == ("link", f"{HOME}/link", FileType.SYMLINK)
    assert (info.mode, info.permissions, info.symlink_target) == (mode, "Lrwxrwxrwx", target)
    assert info in sandbox.files.list(".", depth=9)
    assert sandbox.files.exists("link")


def test_links_are_followed_to_what_is_read_written_and_listed(sandbox: Sandbox) -> None:
    sandbox.files.write("d/f", "1")
    sandbox.commands.run("ln -s d/f to-file; ln -s d to-dir; ln -s new broken; ln -s loop loop")
    assert sandbox.files.read("to-file") == sandbox.files.read("to-dir/f") == "1"
    sandbox.files.write("to-file", "2")
    assert sandbox.files.read("d/f") == "2"
    sandbox.files.write("broken", "3")
    assert sandbox.files.read("new") == "3"
    assert [entry.path for entry in sandbox.files.list("to-dir")] == [f"{HOME}/to-dir/f"]
    below = [entry.path for entry in sandbox.files.list(".", depth=9)]
    assert f"{HOME}/d/f" in below
    assert f"{HOME}/to-dir/f" not in below, "links are not followed on the way down"
    for call in (sandbox.files.read, sandbox.files.list, lambda path: sandbox.files.write(path, "x")):
        with pytest.raises(SandboxException, match="symbolic links"):
            call("loop")


def test_a_link_is_moved_and_removed_and_not_what_it_leads_to(sandbox: Sandbox) -> None:
    sandbox.files.write("d/f", "1")
    sandbox.commands.run("ln -s d link")
    assert sandbox.files.rename("link", "moved").type is FileType.SYMLINK
    sandbox.files.remove("moved")
    assert not sandbox.files.exists("moved")
    assert sandbox.files.read("d/f") == "1"


def test_what_is_neither_file_nor_directory_cannot_be_read_or_written(sandbox: Sandbox) -> None:
    sandbox.commands.run("mkfifo fifo")
    for path in ("fifo", "/dev/zero", "/dev/null"):
        with pytest.raises(InvalidArgumentException, match="not a regular file"):
            sandbox.files.read(path)
        with pytest.raises(InvalidArgumentException, match="not a regular file"):
            sandbox.files.write(path, "x")


@pytest.mark.documented("Filesystem.exists", "Filesystem.remove")
def test_existing_and_removing(sandbox: Sandbox) -> None:
    sandbox.files.write("d/f", "x")
    sandbox.files.write("d/sub/f", "x")
    assert sandbox.files.exists("d")
    assert sandbox.files.exists("d/f")
    assert not sandbox.files.exists("d/g")
    assert not sandbox.files.exists("missing/g")
    assert not sandbox.files.exists("d/f/below")
    assert sandbox.files.exists("~")
    assert sandbox.files.exists("/")
    sandbox.files.remove("d/f")
    assert not sandbox.files.exists("d/f")
    sandbox.files.remove("d")
    assert not sandbox.files.exists("d/sub/f")
    assert not sandbox.files.exists("d")
    sandbox.files.remove("d")
    sandbox.files.remove("missing/below")


@pytest.mark.documented("Filesystem.rename")
def test_renaming(sandbox: Sandbox) -> None:
    sandbox.files.write("old", "content", metadata={"k": "v"})
    moved = sandbox.files.rename("old", "new/place")
    assert (moved.name, moved.path, moved.type, moved.size) == (
        "place",
        f"{HOME}/new/place",
        FileType.FILE,
        7,
    )
    assert moved.metadata == {"k": "v"}
    assert sandbox.files.get_info("new").owner == "user"
    assert sandbox.files.read("new/place") == "content"
    assert not sandbox.files.exists("old")
    for _ in range(2):
        with pytest.raises(FileNotFoundException):
            sandbox.files.rename("old", "newer/place")
    assert sandbox.files.rename("new/place", "new/place").path == f"{HOME}/new/place"


@pytest.mark.documented("Filesystem.rename")
def test_what_renaming_replaces(sandbox: Sandbox) -> None:
    files = sandbox.files
    files.write("a", "a")
    files.write("b", "b")
    files.rename("a", "b")
    assert files.read("b") == "a"
    files.write("full/f", "1")
    files.write("other/f", "2")
    files.make_dir("empty")
    files.rename("full", "empty")
    assert files.read("empty/f") == "1"
    for old, new in (("empty", "other"), ("b", "other"), ("other", "b"), ("other", "other/below")):
        with pytest.raises(SandboxException):
            files.rename(old, new)
    assert (files.read("b"), files.read("empty/f"), files.read("other/f")) == ("a", "1", "2")


@pytest.mark.documented("Filesystem.make_dir")
def test_making_directories(sandbox: Sandbox) -> None:
    assert sandbox.files.make_dir("a/b/c") is True
    assert sandbox.files.make_dir("a/b/c") is False
    assert sandbox.files.make_dir("a") is False
    assert sandbox.files.make_dir("/tmp/there/") is True
    assert {entry.owner for entry in sandbox.files.list("a", depth=3)} == {"user"}
    assert sandbox.files.get_info("a/b").permissions == "drwxr-xr-x"
    sandbox.files.write("f", "x")
    sandbox.commands.run("ln -s a to-dir; ln -s f to-file")
    assert sandbox.files.make_dir("to-dir") is False
    for path in ("f", "to-file"):
        with pytest.raises(InvalidArgumentException):
            sandbox.files.make_dir(path)
    with pytest.raises(SandboxException):
        sandbox.files.make_dir("f/below")


def test_the_user_decides_where_home_is_and_who_owns_what_is_made(sandbox: Sandbox) -> None:
    """Every call takes the documented arguments in their order."""
    files = sandbox.files
    assert files.write("x", "root's", "root", 20).path == "/root/x"
    assert files.write([{"path": "~/several/y", "data": "1"}], "root", 20)[0].path == "/root/several/y"
    assert files.write_files([{"path": "z", "data": "1"}], "root", 20)[0].path == "/root/z"
    assert files.read("/root/x") == files.read("x", "text", "root", 20) == "root's"
    assert files.read("x", "bytes", "root", 20) == b"root's"
    with files.read("x", "stream", "root", 20) as stream:
        assert stream.read() == b"root's"
    assert files.exists("x", "root", 20)
    assert not files.exists("x")
    assert not files.exists("x", "user")
    assert files.make_dir("d", "root", 20)
    assert files.get_info("several", "root", 20).owner == "root"
    assert [entry.name for entry in files.list(".", 1, "root", 20) if entry.name[0] != "."] == [
        "d",
        "several",
        "x",
        "z",
    ]
    assert {entry.owner for entry in files.list("/root", depth=2)} == {"root"}
    assert files.rename("x", "new/x", "root", 20).path == "/root/new/x"
    files.remove("new", "root", 20)
    assert not files.exists("/root/new")
    assert files.write("/tmp/mine", "x", user="user").path == "/tmp/mine"
    assert files.get_info("/tmp/mine").owner == "user"


CALLS: dict[str, Callable[[Filesystem, str], object]] = {
    "read": lambda files, user: files.read("x", user=user),
    "read bytes": lambda files, user: files.read("x", format="bytes", user=user),
    "read stream": lambda files, user: files.read("x", format="stream", user=user),
    "write": lambda files, user: files.write("x", "changed", user=user),
    "write several": lambda files, user: files.write([{"path": "x", "data": "changed"}], user=user),
    "write_files": lambda files, user: files.write_files([{"path": "x", "data": "changed"}], user=user),
    "list": lambda files, user: files.list(".", user=user),
    "exists": lambda files, user: files.exists("x", user=user),
    "get_info": lambda files, user: files.get_info("x", user=user),
    "remove": lambda files, user: files.remove("x", user=user),
    "rename": lambda files, user: files.rename("x", "y", user=user),
    "make_dir": lambda files, user: files.make_dir("d", user=user),
}


def test_an_unknown_user_is_refused(sandbox: Sandbox) -> None:
    sandbox.files.write("x", "content")
    for call in CALLS.values():
        for path in ("nobody_of_that_name", "\u00fc"):
            with pytest.raises(AuthenticationException, match="no user") as caught:
                call(sandbox.files, path)
            assert caught.value.sandbox_id == sandbox.sandbox_id
            assert "the sandbox has no user" not in str(caught.value), "it is said once"
    assert sandbox.files.read("x") == "content"
    assert not sandbox.files.exists("d")
