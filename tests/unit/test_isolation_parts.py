"""The parts of isolation that can be seen without making a box."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from sandbox_local.isolation import errors, ids, probe, tree, users
from sandbox_local.isolation.ids import Ids
from sandbox_local.isolation.making import etc, interpreter, privilege

OWN = Ids(os.getuid(), 1)
"""A box whose users are all whoever runs the tests."""


def test_the_boxs_etc_holds_what_is_named_and_everybody_may_read_and_nothing_more(tmp_path: Path) -> None:
    host, box = tmp_path / "host", tmp_path / "box"
    public = {
        "services": "1",
        "ssl/certs/ca.pem": "2",
        "java-99-openjdk/security/policy": "3",
        "os-release": "4",
    }
    secret = {
        "npmrc": "t",
        "shadow": "t",
        "ssh/key": "t",
        "ssl/private/key": "t",
        "machine-id": "t",
        "gitconfig": "t",
    }
    for name, content in (public | secret).items():
        (host / name).parent.mkdir(parents=True, exist_ok=True)
        (host / name).write_text(content)
    (host / "ssl/certs/hidden.pem").write_text("t")
    (host / "ssl/certs/hidden.pem").chmod(0o600)
    (host / "pam.d").mkdir(mode=0o700)
    (host / "pam.d/hidden").write_text("t")
    (host / "localtime").symlink_to("/usr/share/zoneinfo/UTC")
    (host / "passwd").write_text("host")
    etc.build(str(box), str(host), OWN)
    for name, content in public.items():
        assert (box / name).read_text() == content
    assert os.readlink(box / "localtime") == "/usr/share/zoneinfo/UTC"
    found = {
        str(path.relative_to(box)) for path in box.rglob("*") if path.is_file() and path.read_text() == "t"
    }
    assert found == set()
    assert (box / "passwd").read_text().startswith("root:x:0:0:")
    assert stat.S_IMODE((box / "shadow").stat().st_mode) == 0o640
    assert "user:x:1000:1000:user:/home/user:/bin/bash\n" in (box / "passwd").read_text()


def test_users_are_found_as_the_files_say_whatever_else_these_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passwd, group = tmp_path / "passwd", tmp_path / "group"
    passwd.write_bytes(
        b"\n::\n\xff\xfe:x\nroot:x:zero:0::/:\nbig:x:4294967295:0::/:\nneg:x:-1:0::/:\n"
        b"ann:x:12:34:Ann:/home/ann:/bin/zsh\nbare:x:7:7:::\nann:x:99:99::/:\n"
    )
    group.write_text("one:x:1:ann,bob\ntwo:x:x:ann\nthree:x:3:annabel\nfour:x:4:bob,ann\nann:x:34:\n")
    real = users._lines
    paths = {"/etc/passwd": str(passwd), "/etc/group": str(group)}
    monkeypatch.setattr(users, "_lines", lambda path, width: real(paths[path], width))
    assert users.find("ann") == users.User("ann", 12, 34, (34, 1, 4), "/home/ann", "/bin/zsh")
    assert users.find("bare") == users.User("bare", 7, 7, (7,), "/", "/bin/sh")
    for name in ("root", "big", "neg", "nobody", "", "ann:x"):
        with pytest.raises(errors.UnknownUser):
            users.find(name)
    passwd.unlink()
    os.mkfifo(passwd)
    with pytest.raises(errors.UnknownUser):
        users.find("ann")


@pytest.mark.parametrize(
    ("uid_map", "gid_map", "expected"),
    [
        ("0 0 4294967295", "0 0 4294967295", (4096, 1 << 16)),
        ("0 1000 1\n1 100000 65536", "0 1000 1\n1 100000 65536", (1, 1 << 16)),
        ("0 1000 1\n1 100000 200000", "0 1000 1\n1 100000 200000", (3, 1 << 16)),
        ("0 100000 65536", "0 100000 65536", (1, 65535)),
        ("0 1000 1\n1 100000 65536", "0 1000 1\n1 100000 1000", (1, 1)),
        ("0 1000 1", "0 1000 1", (1, 1)),
        ("1000 1000 1", "1000 1000 1", (1, 1)),
    ],
)
def test_boxes_get_ranges_of_the_ids_that_there_are(
    uid_map: str, gid_map: str, expected: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in (("uid_map", uid_map), ("gid_map", gid_map)):
        (tmp_path / name).write_text(content + "\n")
    real = ids._extents
    monkeypatch.setattr(ids, "_extents", lambda path: real(str(tmp_path / Path(path).name)))
    ranges = ids._ranges()
    assert (len(ranges), ranges[0].size) == expected
    assert len({one.base for one in ranges}) == len(ranges)
    if ranges[0].size > 1:
        assert all(one.base > 0 for one in ranges), "a box's root would be this process's user"


def test_subordinate_ids_are_taken_as_the_administrator_set_them_aside(tmp_path: Path) -> None:
    path = tmp_path / "subuid"
    path.write_text("# nothing\nsomebody:1:2\nbroken\n4321:500000:65536\n")
    assert privilege._subordinate(str(path), 4321) == ("500000", "65536")
    assert privilege._subordinate(str(path), 4322) is None
    assert privilege._subordinate(str(tmp_path / "missing"), 4321) is None


def test_a_template_is_copied_with_links_modes_and_owners(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    tree.write(str(source / "a/b"), b"content", OWN, mode=0o755)
    tree.link(str(source / "a/link"), "b", OWN)
    tree.make_directories(str(source / "empty"), OWN)
    (source / "empty").chmod(0o1777)
    target.mkdir()
    tree.copy(str(source), str(target), OWN)
    assert (target / "a/link").read_bytes() == b"content"
    assert (target / "a/link").is_symlink()
    assert stat.S_IMODE((target / "a/b").stat().st_mode) == 0o755
    assert stat.S_IMODE((target / "empty").stat().st_mode) == 0o1777


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_copy_belongs_to_the_ids_of_the_box(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    tree.write(str(source / "file"), b"", Ids(0, 1 << 16))
    os.chown(source / "file", 33, 42)
    target.mkdir()
    tree.copy(str(source), str(target), Ids(1 << 20, 1 << 16))
    info = (target / "file").stat()
    assert (info.st_uid, info.st_gid) == ((1 << 20) + 33, (1 << 20) + 42)


def test_the_hosts_python_serves_unless_another_is_asked_for_or_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exposed = interpreter.choose(expose=True)
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    assert exposed.path == f"/opt/py/bin/{name}"
    assert os.access(exposed.program, os.X_OK)
    assert f"opt/py/lib/{name}/site-packages" in exposed.masks()
    assert exposed.starters()["bin/python3"].splitlines()[1] == f'exec {exposed.path} "$@"'.encode()
    monkeypatch.setattr(interpreter, "_DIRECTORIES", ())
    assert interpreter.choose(expose=False) == exposed


def test_a_program_that_looks_for_its_library_at_one_place_is_led_to_another(tmp_path: Path) -> None:
    program, library = tmp_path / "program", str(tmp_path / "lib")
    python = interpreter.Python("/opt/py/bin/python3", str(program), library)
    program.write_bytes(b"ELF\0" + library.encode() + b"\0rest")
    changed = python.relocated()
    assert changed is not None
    assert len(changed) == program.stat().st_size
    assert changed.startswith(b"ELF\0/opt/py/lib\0\0")
    assert changed.endswith(b"\0rest")
    program.write_bytes(b"ELF\0$ORIGIN/../lib\0rest")
    assert python.relocated() is None


@pytest.mark.parametrize(
    ("sysctl", "number", "cause", "remedy"),
    [
        (
            {"kernel/unprivileged_userns_clone": "0"},
            errno.EPERM,
            "reserved to root",
            "unprivileged_userns_clone=1",
        ),
        (
            {"kernel/apparmor_restrict_unprivileged_userns": "1"},
            errno.EACCES,
            "AppArmor",
            "apparmor_restrict_unprivileged_userns=0",
        ),
        ({"user/max_user_namespaces": "0"}, errno.ENOSPC, "no user namespaces", "max_user_namespaces="),
        ({"user/max_user_namespaces": "9"}, errno.ENOSPC, "limit on namespaces", "/proc/sys/user"),
        ({}, errno.EPERM, "forbids it", "--privileged"),
        ({}, errno.ENOSYS, "lacks what is needed", "Linux 5.12"),
    ],
)
def test_a_refusal_is_explained_by_what_the_machine_says_of_itself(
    sysctl: dict[str, str], number: int, cause: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G27: one error that names the cause and the remedy."""
    monkeypatch.setattr(probe, "_sysctl", sysctl.get)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    message = str(probe.explain("making namespaces", number, "unshare"))
    assert "making namespaces failed (unshare)" in message
    assert cause in message
    assert remedy in message


@pytest.mark.parametrize(
    "error",
    [
        errors.UnknownUser("no user 'x'"),
        errors.MissingDirectory("gone"),
        FileNotFoundError(errno.ENOENT, "gone"),
        OSError(errno.ENOSPC, "full"),
        ValueError("bad"),
    ],
)
def test_errors_pass_from_a_box_to_the_server_as_they_are(error: Exception) -> None:
    restored = errors.restore(errors.describe(error))
    assert type(restored) is type(error)
    assert getattr(restored, "errno", None) == getattr(error, "errno", None)


@pytest.mark.parametrize(
    "told", [None, 5, {}, {"kind": []}, {"kind": "os"}, {"kind": "os", "errno": -1}, [{}]]
)
def test_an_error_that_makes_no_sense_is_an_error_all_the_same(told: object) -> None:
    assert isinstance(errors.restore(told), RuntimeError)
