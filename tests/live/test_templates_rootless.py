"""Templates of a user without any privileges: imported, used and removed, whatever their modes and owners."""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.rootfs import add_python, entry, make_archive, make_rootfs
from tests.live.unprivileged import run_unprivileged

_PROGRAM = """
import asyncio, json, os, subprocess, sys, tempfile
from pathlib import Path
from sandbox_local.isolation.base import BoxSpec, Command, IsolationError
from sandbox_local.isolation.namespaces import NamespaceBackend
from sandbox_local.templates.store import Store

async def output(fd):
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb")
    )
    try:
        return (await reader.read()).decode()
    finally:
        transport.close()

async def run(box, script, user):
    process = await box.spawn(Command(["/bin/bash", "-c", script], user))
    out, err = await asyncio.gather(output(process.stdout), output(process.stderr))
    return [(await process.exit).code, out, err]

def cli(*arguments):
    command = [sys.executable, "-m", "sandbox_local", "template", *arguments, "--templates", store]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return [done.returncode, done.stdout, done.stderr]

async def use():
    backend = NamespaceBackend(templates=store)
    await backend.start()
    build = Store(Path(store)).find("one").build_id
    boxes = [await backend.create(BoxSpec(f"box{n}", template=build)) for n in "12"]
    told["boxes"] = [
        [await run(box, script, user) for script, user in SCRIPTS] for box in boxes
    ]
    await backend.close()

with tempfile.TemporaryDirectory() as home:
    store = os.path.join(home, "store")
    told = {"import": cli("import", "one", SOURCE)}
    if not told["import"][0]:
        asyncio.run(use())
    told["again"] = cli("import", "one", SOURCE)
    told["delete"] = cli("delete", "one")
    told["left"] = os.listdir(store)
print(json.dumps(told))
"""

_SCRIPTS = [
    ("id -u; cat /etc/marker; echo mine >~/x && stat -c %U ~/x", "user"),
    ("id -u; echo changed >/etc/marker; rm -r /closed /bin/cat; ls /closed", "root"),
]


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that everybody may read."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.mark.parametrize("kind", ["archive", "directory"])
def test_an_unprivileged_user_imports_uses_and_removes_a_template(public: Path, kind: str) -> None:
    rootfs = make_rootfs(public / "rootfs")
    (rootfs / "etc").mkdir()
    (rootfs / "etc/marker").write_text("of the template\n")
    (rootfs / "closed").mkdir(0o555)
    source = rootfs
    if kind == "archive":
        shut = entry("closed/shut", tarfile.DIRTYPE)
        shut.mode = 0
        owned = entry("owned", size=1)
        owned.uid, owned.gid, owned.mode = 33, 33, 0o4755
        source = make_archive(public / "a", rootfs, shut, owned, entry("closed/shut/file"))
    told = json.loads(run_unprivileged(f"SOURCE, SCRIPTS = {str(source)!r}, {_SCRIPTS!r}\n" + _PROGRAM))
    assert told["import"][0] == 0, told["import"]
    for as_user, as_root in told["boxes"]:  # the second sees nothing of what the first has changed
        assert as_user == [0, "1000\nof the template\nuser\n", ""]
        assert as_root[1] == "0\n"
        assert "cannot access '/closed'" in as_root[2]
    assert told["again"][0] == 0, told["again"]
    assert told["delete"] == [0, "", ""]
    assert told["left"] == []


def test_sudo_works_in_a_template_that_has_python(public: Path) -> None:
    rootfs = make_rootfs(public / "rootfs", ("bash", "id", "rm", "ls"))
    if not add_python(rootfs):
        pytest.skip("this machine has no Python of its own")
    scripts = [("sudo id -u; sudo -u user id -un; sudo bash -c 'exit 3'", "user")]
    told = json.loads(run_unprivileged(f"SOURCE, SCRIPTS = {str(rootfs)!r}, {scripts!r}\n" + _PROGRAM))
    assert told["boxes"] == [[[3, "0\nuser\n", ""]]] * 2, told
