"""The file worker, in a process of its own, asked over its socket."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_local.isolation import wire
from sandbox_local.isolation.base import UnknownUser
from sandbox_local.isolation.files.entry import permissions
from tests.unit.envd_standin import FileWorker

OPENINGS: list[tuple[str, dict[str, Any]]] = [("open_read", {}), ("open_write", {"metadata": {}})]


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[FileWorker]:
    worker = FileWorker(tmp_path)
    yield worker
    worker.close()
    assert worker.process.returncode == 0


def entry(worker: FileWorker, path: str) -> dict[str, Any]:
    found: dict[str, Any] = worker.call("stat", user="user", path=path)[0]["entry"]
    return found


def listing(worker: FileWorker, path: str, depth: int = 1) -> list[dict[str, Any]]:
    answer, fds = worker.call("list_dir", user="user", path=path, depth=depth)
    if "entries" in answer:
        assert fds == []
        entries: list[dict[str, Any]] = answer["entries"]
        return entries
    with open(fds[0], "rb") as lines:
        lines.seek(0)
        content = lines.read()
    assert len(content) == answer["size"]
    return [told for line in content.splitlines() for told in json.loads(line)]


def names(worker: FileWorker, path: str, depth: int = 1) -> list[str]:
    return [found["path"].removeprefix(f"{worker.home}/") for found in listing(worker, path, depth)]


def read(fds: list[int]) -> bytes:
    with open(fds[0], "rb") as file:
        file.seek(0)
        return file.read()


# -- paths and users


@pytest.mark.parametrize(
    ("path", "below_home"),
    [
        ("", ""),
        ("~", ""),
        ("~/", ""),
        ("~/a/b", "a/b"),
        ("~//a", "a"),
        ("a/b", "a/b"),
        ("./a/../a/b/", "a/b"),
        ("a//b", "a/b"),
    ],
)
def test_paths_begin_at_the_users_home(worker: FileWorker, path: str, below_home: str) -> None:
    (worker.home / "a/b").mkdir(parents=True)
    assert entry(worker, path)["path"] == str(worker.home / below_home)


def test_an_absolute_path_is_kept_as_it_is(worker: FileWorker) -> None:
    (worker.home / "a").mkdir()
    found = entry(worker, f"{worker.home}/a/../a/")
    assert (found["path"], found["name"]) == (f"{worker.home}/a/../a/", "a")


@pytest.mark.parametrize("path", ["~root", "~root/x", "a\0b", "/\0", "caf\udce9"])
def test_a_path_that_cannot_be_expanded_is_an_error_of_the_path(worker: FileWorker, path: str) -> None:
    with pytest.raises(ValueError, match=r"path|home"):
        worker.call("stat", user="user", path=path)


def test_a_path_longer_than_the_kernel_takes_is_an_error_of_the_path(worker: FileWorker) -> None:
    for path in ("a" * 256, "/tmp/" + "é" * 128, "a/" * 3000, "a" * 1_000_000):
        with pytest.raises(ValueError, match="too long"):
            worker.call("stat", user="user", path=path)
    with pytest.raises(FileNotFoundError):
        worker.call("stat", user="user", path="a" * 255)


@pytest.mark.parametrize("user", ["nobody-here", "", "broken line", "us", "user:x", "us\udce9er"])
def test_a_user_that_the_box_has_not_is_an_error_of_the_user(worker: FileWorker, user: str) -> None:
    with pytest.raises(UnknownUser):
        worker.call("stat", user=user, path="/")


def test_accounts_are_read_anew_when_they_change(worker: FileWorker) -> None:
    passwd = worker.home.parent / "passwd"
    with pytest.raises(UnknownUser):
        worker.call("stat", user="late", path="")
    passwd.write_text(passwd.read_text() + f"late:x:1:1::{worker.home}/late:/bin/sh\n")
    (worker.home / "late").mkdir()
    assert worker.call("stat", user="late", path="")[0]["entry"]["name"] == "late"


def test_an_account_file_that_is_a_fifo_blocks_nobody(worker: FileWorker) -> None:
    passwd = worker.home.parent / "passwd"
    passwd.unlink()
    os.mkfifo(passwd)
    with pytest.raises(UnknownUser):
        worker.call("stat", user="user", path="")


# -- entries


def test_an_entry_tells_all_of_a_file(worker: FileWorker) -> None:
    file = worker.home / "f.txt"
    file.write_bytes(b"12345")
    file.chmod(0o4640)
    os.utime(file, ns=(1, 1_700_000_000_123_456_789))
    assert entry(worker, "f.txt") == {
        "name": "f.txt",
        "path": str(file),
        "type": "file",
        "size": 5,
        "mode": 0o640,
        "permissions": "urw-r-----",
        "owner": "user",
        "group": "users",
        "mtime_ns": 1_700_000_000_123_456_789,
        "symlink_target": None,
        "is_symlink": False,
        "metadata": {},
    }


def test_a_link_has_its_targets_type_and_mode_and_its_own_permissions(worker: FileWorker) -> None:
    (worker.home / "d").mkdir(mode=0o750)
    (worker.home / "l").symlink_to("d")
    (worker.home / "l2").symlink_to("l")
    found = entry(worker, "l2")
    assert (found["type"], found["mode"], found["permissions"]) == ("dir", 0o750, "Lrwxrwxrwx")
    assert (found["symlink_target"], found["is_symlink"]) == (str(worker.home / "d"), True)


@pytest.mark.parametrize("target", ["nowhere", "l"])
def test_a_link_that_leads_nowhere_is_its_own_target(worker: FileWorker, target: str) -> None:
    (worker.home / "l").symlink_to(target)
    found = entry(worker, "l")
    assert (found["type"], found["mode"], found["is_symlink"]) == ("", 0, True)
    assert found["symlink_target"] == str(worker.home / "l")


def test_a_chain_of_links_longer_than_the_kernel_follows_is_no_crash(worker: FileWorker) -> None:
    (worker.home / "0").write_text("")
    for i in range(3000):
        (worker.home / str(i + 1)).symlink_to(str(i))
    assert entry(worker, "30")["type"] == "file"
    assert entry(worker, "3000")["type"] == ""


def test_what_is_neither_file_nor_directory_has_no_type(worker: FileWorker) -> None:
    os.mkfifo(worker.home / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(worker.home / "sock"))
    assert (
        entry(worker, "fifo")["type"]
        == entry(worker, "sock")["type"]
        == entry(worker, "/dev/null")["type"]
        == ""
    )


@pytest.mark.parametrize(
    ("mode", "letters"),
    [
        (stat.S_IFREG | 0o644, "-rw-r--r--"),
        (stat.S_IFDIR | 0o755, "drwxr-xr-x"),
        (stat.S_IFDIR | 0o1777, "dtrwxrwxrwx"),
        (stat.S_IFLNK | 0o777, "Lrwxrwxrwx"),
        (stat.S_IFREG | 0o4755, "urwxr-xr-x"),
        (stat.S_IFREG | 0o6755, "ugrwxr-xr-x"),
        (stat.S_IFCHR | 0o666, "Dcrw-rw-rw-"),
        (stat.S_IFBLK | 0o660, "Drw-rw----"),
        (stat.S_IFIFO | 0o600, "prw-------"),
        (stat.S_IFSOCK | 0o777, "Srwxrwxrwx"),
    ],
)
def test_permissions_are_written_as_go_writes_them(mode: int, letters: str) -> None:
    assert permissions(mode) == letters


def test_owners_without_a_name_are_numbers(worker: FileWorker) -> None:
    (worker.home.parent / "passwd").write_text(f"user:x:4242:4242::{worker.home}:\n")
    (worker.home.parent / "group").write_text("")
    found = entry(worker, "")
    assert (found["owner"], found["group"]) == (str(os.getuid()), str(os.getgid()))


# -- listing


def test_a_listing_is_in_order_without_the_root_and_to_the_depth_asked_for(worker: FileWorker) -> None:
    (worker.home / "d/b/c/deep").mkdir(parents=True)
    (worker.home / "d/a").write_text("")
    (worker.home / "d/b.txt").write_text("")
    assert names(worker, "d", 0) == names(worker, "d", 1) == ["d/a", "d/b", "d/b.txt"]
    assert names(worker, "d", 2) == ["d/a", "d/b", "d/b/c", "d/b.txt"]
    assert names(worker, "d", 4_294_967_295) == ["d/a", "d/b", "d/b/c", "d/b/c/deep", "d/b.txt"]


def test_a_link_is_followed_as_the_root_of_a_listing_but_not_below(worker: FileWorker) -> None:
    (worker.home / "d/sub").mkdir(parents=True)
    (worker.home / "l").symlink_to("d")
    (worker.home / "d/back").symlink_to("..")
    assert names(worker, "l", 9) == ["l/back", "l/sub"]


@pytest.mark.parametrize(
    ("path", "code"), [("missing", errno.ENOENT), ("file", errno.ENOTDIR), ("loop", errno.ELOOP)]
)
def test_a_listing_of_no_directory_fails_with_the_reason(worker: FileWorker, path: str, code: int) -> None:
    (worker.home / "file").write_text("")
    (worker.home / "loop").symlink_to("loop")
    with pytest.raises(OSError, match=path) as caught:
        worker.call("list_dir", user="user", path=path, depth=1)
    assert caught.value.errno == code


def test_hostile_names_are_listed_and_removed(worker: FileWorker) -> None:
    odd = [b"new\nline", b"caf\xe9", b'"quoted"', b"\x01\x7f", b"x" * 255, "schön 😀".encode(), b"-rf", b" "]
    os.mkdir(worker.home / "odd")
    for name in odd:
        with open(os.fsencode(worker.home / "odd") + b"/" + name, "wb"):
            pass
    listed = {found["name"] for found in listing(worker, "odd")}
    assert listed == {name.decode("utf-8", "replace") for name in odd}
    assert "caf\N{REPLACEMENT CHARACTER}" in listed
    worker.call("remove", user="user", path="odd")
    assert not (worker.home / "odd").exists()


def test_a_listing_is_bounded(worker: FileWorker) -> None:
    (worker.home / "many").mkdir()
    deep = worker.home / "many" / ("d" * 250) / ("e" * 250)
    deep.mkdir(parents=True)
    for i in range(60_000):
        os.close(os.open(deep / f"{i:05}{'x' * 250}", os.O_CREAT))
    with pytest.raises(OSError, match="too many entries") as caught:
        worker.call("list_dir", user="user", path="many", depth=3)
    assert caught.value.errno == errno.EOVERFLOW


# -- making, moving, removing


def test_make_dir_makes_the_parents_too(worker: FileWorker) -> None:
    made = worker.call("make_dir", user="user", path="a/b/c")[0]["entry"]
    assert (made["path"], made["type"], made["permissions"]) == (
        str(worker.home / "a/b/c"),
        "dir",
        "drwxr-xr-x",
    )


def test_make_dir_tells_what_is_in_the_way(worker: FileWorker) -> None:
    (worker.home / "file").write_text("")
    (worker.home / "dangling").symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        worker.call("make_dir", user="user", path="")
    with pytest.raises(ValueError, match="not a directory"):
        worker.call("make_dir", user="user", path="file")
    with pytest.raises(NotADirectoryError):
        worker.call("make_dir", user="user", path="file/below")
    with pytest.raises(NotADirectoryError):
        worker.call("make_dir", user="user", path="dangling/below")


def test_move_makes_parents_and_replaces_files(worker: FileWorker) -> None:
    (worker.home / "a").write_text("new")
    (worker.home / "x/y").mkdir(parents=True)
    (worker.home / "x/y/b").write_text("old")
    moved = worker.call("move", user="user", source="a", destination="x/y/b")[0]["entry"]
    assert (moved["name"], moved["path"]) == ("b", str(worker.home / "x/y/b"))
    assert (worker.home / "x/y/b").read_text() == "new"
    worker.call("move", user="user", source="x/y/b", destination="p/q/r")
    assert (worker.home / "p/q/r").read_text() == "new"


def test_move_of_nothing_makes_nothing(worker: FileWorker) -> None:
    with pytest.raises(FileNotFoundError):
        worker.call("move", user="user", source="missing", destination="p/q")
    assert not (worker.home / "p").exists()


def test_move_onto_a_directory_with_contents_fails(worker: FileWorker) -> None:
    (worker.home / "full/x").mkdir(parents=True)
    (worker.home / "d").mkdir()
    with pytest.raises(OSError, match="not empty"):
        worker.call("move", user="user", source="d", destination="full")


def test_move_crosses_file_systems(worker: FileWorker) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        if os.stat(other).st_dev == worker.home.stat().st_dev:
            pytest.skip("the temporary directory is in memory too")
        (worker.home / "tree/d").mkdir(parents=True)
        (worker.home / "tree/d/f").write_text("content")
        (worker.home / "tree/l").symlink_to("nowhere")
        os.utime(worker.home / "tree/d/f", (1, 1))
        moved = worker.call("move", user="user", source="tree", destination=f"{other}/a/b")[0]["entry"]
        assert moved["path"] == f"{other}/a/b"
        assert os.stat(f"{other}/a/b/d/f").st_mtime == 1
        assert os.readlink(f"{other}/a/b/l") == "nowhere"
        assert os.listdir(worker.home) == []
        (worker.home / "full/x").mkdir(parents=True)
        with pytest.raises(OSError, match="cross-device"):
            worker.call("move", user="user", source=f"{other}/a/b", destination="full")
        assert os.path.exists(f"{other}/a/b/d/f")


def test_remove_takes_all_below_and_no_link_target(worker: FileWorker) -> None:
    (worker.home / "kept").mkdir()
    (worker.home / "kept/file").write_text("")
    (worker.home / "tree/a/b").mkdir(parents=True)
    (worker.home / "tree/a/file").write_text("")
    (worker.home / "tree/a/link").symlink_to(worker.home / "kept")
    worker.call("remove", user="user", path="tree")
    worker.call("remove", user="user", path="tree")
    (worker.home / "link").symlink_to("kept")
    worker.call("remove", user="user", path="link")
    assert sorted(os.listdir(worker.home)) == ["kept"]
    assert (worker.home / "kept/file").exists()


def test_a_tree_deeper_than_paths_and_descriptors_reach_is_listed_and_removed(worker: FileWorker) -> None:
    top = os.open(worker.home, os.O_RDONLY)
    fd = os.dup(top)
    for _ in range(5000):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    assert len(listing(worker, "", 10_000)) > 1000
    worker.call("remove", user="user", path="d")
    assert os.listdir(top) == []
    os.close(top)


# -- opening


def test_open_read_gives_a_descriptor_of_the_content(worker: FileWorker) -> None:
    (worker.home / "f").write_bytes(b"content")
    answer, fds = worker.call("open_read", user="user", path="f")
    assert (answer["name"], read(fds)) == ("f", b"content")


def test_open_read_gives_what_the_kernel_makes_up(worker: FileWorker) -> None:
    _, fds = worker.call("open_read", user="user", path="/proc/self/limits")
    assert os.fstat(fds[0]).st_size > 0
    assert b"Max open files" in read(fds)


def test_only_regular_files_are_opened(worker: FileWorker) -> None:
    os.mkfifo(worker.home / "fifo")
    (worker.home / "to-fifo").symlink_to("fifo")
    (worker.home / "dir").mkdir()
    for operation, arguments in OPENINGS:
        for path in ("fifo", "to-fifo", "/dev/null", "/dev/zero"):
            with pytest.raises(ValueError, match="not a regular file"):
                worker.call(operation, user="user", path=path, **arguments)
        with pytest.raises(IsADirectoryError):
            worker.call(operation, user="user", path="dir", **arguments)
    with pytest.raises(FileNotFoundError):
        worker.call("open_read", user="user", path="missing")


def test_open_write_makes_parents_and_empties_the_file(worker: FileWorker) -> None:
    for content in (b"first and long", b"second"):
        answer, fds = worker.call("open_write", user="user", path="p/q/f", metadata={})
        assert (answer["path"], answer["name"]) == (str(worker.home / "p/q/f"), "f")
        os.write(fds[0], content)
        os.close(fds[0])
    assert (worker.home / "p/q/f").read_bytes() == b"second"
    assert entry(worker, "p/q/f")["permissions"] == "-rw-r--r--"


def test_open_write_does_not_write_below_a_file(worker: FileWorker) -> None:
    (worker.home / "f").write_text("")
    with pytest.raises(NotADirectoryError):
        worker.call("open_write", user="user", path="f/g", metadata={})


def test_metadata_is_replaced_as_a_whole(worker: FileWorker) -> None:
    for metadata in ({"a": "1", "b": "2"}, {"b": "3", "c": ""}, {}):
        answer, fds = worker.call("open_write", user="user", path="f", metadata=metadata)
        os.close(fds[0])
        if answer["metadata"] != metadata and not answer["metadata"]:
            pytest.skip("the file system of the temporary directory has no user attributes")
        assert answer["metadata"] == entry(worker, "f")["metadata"] == metadata


# -- composing


def test_compose_concatenates_in_order_and_removes_the_parts(worker: FileWorker) -> None:
    for name in ("b", "a", "c"):
        (worker.home / name).write_bytes(name.encode() * 3)
    answer, _ = worker.call("compose", user="user", sources=["b", "a", "c"], destination="out/whole")
    assert answer == {"path": str(worker.home / "out/whole"), "name": "whole"}
    assert (worker.home / "out/whole").read_bytes() == b"bbbaaaccc"
    assert os.listdir(worker.home) == ["out"]
    assert os.listdir(worker.home / "out") == ["whole"]


@pytest.mark.parametrize(
    ("sources", "destination", "error"),
    [
        ([], "x", ValueError),
        (["a", "./a"], "x", ValueError),
        (["a", "b"], "~/b", ValueError),
        (["a", "missing"], "x", FileNotFoundError),
        (["a", "dir"], "x", IsADirectoryError),
        (["a"], "dir", IsADirectoryError),
        (["a", "fifo"], "x", ValueError),
    ],
)
def test_compose_refuses_and_leaves_all_as_it_was(
    worker: FileWorker, sources: list[str], destination: str, error: type[Exception]
) -> None:
    (worker.home / "a").write_text("a")
    (worker.home / "b").write_text("b")
    (worker.home / "dir").mkdir()
    os.mkfifo(worker.home / "fifo")
    with pytest.raises(error):
        worker.call("compose", user="user", sources=sources, destination=destination)
    assert sorted(os.listdir(worker.home)) == ["a", "b", "dir", "fifo"]


# -- the loop


def test_a_long_operation_does_not_delay_a_short_one(worker: FileWorker) -> None:
    """G7: neither does a hundred of them, of which only some run at a time."""
    tree = worker.home / "tree"
    for i in range(40):
        (tree / str(i)).mkdir(parents=True)
        for j in range(50):
            (tree / str(i) / str(j)).write_text("")
    for i in range(100):
        worker.send(i, "list_dir", user="user", path="tree", depth=2)
    worker.send(1000, "stat", user="user", path="")
    order = []
    for _ in range(101):
        reply, fds = worker.recv()
        assert "ok" in reply
        order.append(reply["id"])
        for fd in fds:
            os.close(fd)
    assert sorted(order) == [*range(100), 1000]
    assert order.index(1000) < 50


@pytest.mark.parametrize(
    "request_",
    [
        {"id": 5, "op": "no_such_thing", "args": {}},
        {"id": 5, "op": "__init__", "args": {}},
        {"id": 5, "op": None, "args": {}},
        {"id": 5, "op": "stat", "args": {}},
        {"id": 5, "op": "stat", "args": {"user": "user", "path": 7}},
        {"id": 5, "op": "remove", "args": {"user": "user", "path": []}},
        {"id": 5, "op": "stat"},
        {"id": 5},
    ],
)
def test_a_senseless_request_is_answered_and_survived(worker: FileWorker, request_: dict[str, Any]) -> None:
    wire.send(worker.sock, request_)
    reply, _ = worker.recv()
    assert (reply["id"], reply["error"]["kind"]) == (5, "internal")
    assert entry(worker, "")["type"] == "dir"


def test_opening_leaks_no_descriptor(worker: FileWorker) -> None:
    (worker.home / "f").write_text("x")
    (worker.home / "empty").write_text("")
    entry(worker, "")  # it is ready now
    before = len(os.listdir(f"/proc/{worker.process.pid}/fd"))
    for path in ("f", "empty", "missing", "/dev/null", ""):
        for operation, arguments in OPENINGS:
            try:
                _, fds = worker.call(operation, user="user", path=path, **arguments)
                os.close(fds[0])
            except (OSError, ValueError):
                pass
    listing(worker, "")
    entry(worker, "")  # it is done with all that came before
    assert len(os.listdir(f"/proc/{worker.process.pid}/fd")) == before


def test_usage_counts_what_runs(worker: FileWorker) -> None:
    answer, _ = worker.call("usage")
    assert answer["cpu_seconds"] > 0
    assert answer["memory_used"] > 1 << 20
    assert 0 < answer["disk_used"] < answer["disk_total"]
