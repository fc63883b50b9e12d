"""Sandboxes that start from templates."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox_local import LocalServer
from sandbox_local.isolation.base import BoxSpec, IsolationError, Limits
from sandbox_local.isolation.namespace_box import NamespaceBox
from sandbox_local.isolation.namespaces import NamespaceBackend
from sandbox_local.templates.store import Store, template_id
from sandbox_sync import NotFoundException, Sandbox
from tests.live.boxes import a_backend, in_loop, shell, until
from tests.live.rootfs import make_rootfs, snapshot, start_template, template


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rootfs = make_rootfs(tmp_path_factory.mktemp("rootfs"))
    (rootfs / "etc").mkdir()
    (rootfs / "etc/marker").write_text("of the template\n")
    return rootfs


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, rootfs: Path) -> Path:
    store = tmp_path_factory.mktemp("templates") / "store"
    template(store, "import", "one", rootfs)
    return store


@pytest.fixture
def server(store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    with LocalServer(templates=store) as server:
        for name, value in server.env.items():
            monkeypatch.setenv(name, value)
        yield server
        assert "Traceback" not in server.log, server.log


async def a_box(backend: NamespaceBackend, store: Path, name: str = "one", **options: int) -> NamespaceBox:
    stored = Store(store).find(name)
    assert stored
    return await backend.create(BoxSpec("box", template=stored.build_id, limits=Limits(**options)))


def test_a_box_has_the_templates_files_and_its_own_users_and_devices(store: Path) -> None:
    async def test() -> None:
        async with a_backend(templates=str(store)) as backend:
            box = await a_box(backend, store)
            told = await shell(
                box,
                "id; cat /etc/marker; stat -c '%U %a' ~ /tmp /etc/marker; ls -A /usr/lib/python3 2>&1;"
                "echo $PWD; echo x >~/x; stat -c %U ~/x; echo y >/dev/null; : </proc/self/status",
            )
            assert told.stdout.splitlines() == [
                "uid=1000(user) gid=1000(user) groups=1000(user)",
                "of the template",
                *("user 755", "root 1777", "root 644"),
                "ls: cannot access '/usr/lib/python3': No such file or directory",
                "/home/user",
                "user",
            ]
            assert told.stderr == ""
            as_user = await shell(box, "echo x >>/etc/marker")
            assert "Permission denied" in as_user.stderr
            sudo = await shell(box, "sudo id")
            assert (sudo.exit.code, "run commands as root" in sudo.stderr) == (1, True)

    in_loop(test())


def test_boxes_of_one_template_do_not_see_each_others_changes_nor_change_it(store: Path) -> None:
    """Whatever its root does, the files of the store stay as they are."""
    before = snapshot(store)

    async def test() -> None:
        async with a_backend(templates=str(store)) as backend:
            one, two = [await a_box(backend, store) for _ in range(2)]
            done = await shell(
                one, "echo mine >/etc/marker; echo new >/new; rm /bin/id; cat /etc/marker", "root"
            )
            assert (done.stdout, done.stderr) == ("mine\n", "")
            other = await shell(two, "cat /etc/marker; ls /new; id -u", "root")
            assert other.stdout == "of the template\n0\n"
            await shell(
                one, "chmod 777 /etc; rm -rf --no-preserve-root /bin /etc /home /lib* /usr /root", "root"
            )
            assert (await shell(two, "cat /etc/marker")).stdout == "of the template\n"
            for path in ("/templates", "/box", "/host", "/template"):
                assert (await shell(two, f"[ ! -e {path} ]", "root")).exit.code == 0

    in_loop(test())
    assert snapshot(store) == before


def test_what_a_box_writes_over_a_template_is_bounded_and_the_kernels_files_are_hidden(store: Path) -> None:
    async def test() -> None:
        async with a_backend(templates=str(store)) as backend:
            box = await a_box(backend, store, disk_bytes=8 << 20)
            for path in ("/tmp/big", "/usr/big", "/run/big", "/dev/big"):
                fill = f'for ((i=0; i<256; i++)); do echo -n "$x" >>{path} || break; done; echo $i; rm {path}'
                script = "x=$(printf %65536s); " + fill
                told = await shell(box, script, "root")
                assert "No space left" in told.stderr, path
                assert int(told.stdout) <= 128  # of 64 KiB each
            for name in ("kcore", "kallsyms", "timer_list"):
                if os.path.exists(f"/proc/{name}"):
                    assert (await shell(box, f"cat /proc/{name}", "root")).stdout == ""

    in_loop(test())


def test_a_build_that_is_gone_or_has_other_owners_is_refused(
    store: Path, rootfs: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    template(other, "import", "one", rootfs)
    stored = Store(other).find("one")
    assert stored

    async def test() -> None:
        async with a_backend(templates=str(other)) as backend:
            with pytest.raises(IsolationError, match="No such file"):
                await backend.create(BoxSpec("box", template="00000000-0000-0000-0000-000000000000"))
            os.chown(other / stored.build_id / "rootfs", 12345, 12345)
            with pytest.raises(IsolationError, match="import it again"):
                await backend.create(BoxSpec("box", template=stored.build_id))
        async with a_backend() as backend:
            with pytest.raises(IsolationError, match="No such file"):
                await backend.create(BoxSpec("box", template=stored.build_id))

    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    in_loop(test())


def test_the_sdk_makes_lists_and_deletes(server: LocalServer, store: Path, rootfs: Path) -> None:
    template(store, "import", "later", rootfs)  # the server runs already
    with Sandbox.create("later", timeout=60) as sandbox:
        told = sandbox.commands.run("cat /etc/marker; echo $E2B_TEMPLATE_ID")
        assert told.stdout.split("\n")[:2] == ["of the template", template_id("later")]
        sandbox.files.write("/home/user/x", "from outside")
        assert sandbox.commands.run("cat ~/x").stdout == "from outside"
        info = sandbox.get_info()
        assert (info.template_id, info.name) == (template_id("later"), "later")
        template(store, "delete", "later")
        # Its files stay for as long as it lives.
        assert sandbox.commands.run("cat /etc/marker; ls /bin").stdout.startswith("of the template")
        with pytest.raises(NotFoundException, match="base, one"):
            Sandbox.create("later", timeout=60)
    (kept,) = Store(store).templates()
    asyncio.run(until(lambda: [path.name for path in store.iterdir() if path.is_dir()] == [kept.build_id]))


def test_a_template_is_imported_anew_while_sandboxes_are_made_of_it(
    server: LocalServer, store: Path, rootfs: Path, tmp_path: Path
) -> None:
    newer = tmp_path / "newer"
    shutil.copytree(rootfs, newer)
    for number in range(6):
        (newer / "etc/marker").write_text(f"{number}\n")
        (newer / "etc/again").write_text(f"{number}\n")
        with start_template(store, "import", "busy", newer) as importing:
            while importing.poll() is None and number:
                with Sandbox.create("busy", timeout=60) as sandbox:
                    first, again = sandbox.commands.run("cat /etc/marker /etc/again").stdout.split()
                    assert first == again
                    assert int(first) in (number - 1, number)
            _, err = importing.communicate(timeout=60)
            assert importing.returncode == 0, err
    template(store, "delete", "busy")
