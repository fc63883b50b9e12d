"""Version 2 of control groups, on a real tree: where groups can be made, and what that takes.

The machines that tests run on may have the controllers that count in trees of version 1. The rules for
handing on controllers are the same for each of them, so here it is one that no other tree has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_local.isolation.limits import hierarchy
from sandbox_local.isolation.limits.leftovers import remove_tree

_PROGRAM = """
import json, os, sys
from pathlib import Path
from sandbox_local.isolation.limits import delegation
from sandbox_local.isolation.limits.hierarchy import Hierarchy

top, own, controller, user = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
(own / "cgroup.procs").write_text("0", encoding="ascii")  # which loads what the user may not read
os.setresgid(user, user, user)
os.setresuid(user, user, user)

def state():
    return {
        "inside": Path("/proc/self/cgroup").read_text().split("::")[1].split()[0].rpartition("/")[2],
        "handed_on": (own / "cgroup.subtree_control").read_text().split(),
        "groups": sorted(path.name for path in own.iterdir() if path.is_dir()),
    }

place = delegation.find(Hierarchy(2, frozenset({controller}), top, own), frozenset({controller}), "leaf")
report = {"path": str(place.path), "controllers": sorted(place.controllers), "cause": place.cause}
report["found"] = state()
if place.controllers:
    (place.path / "made").mkdir()
    report["offered"] = (place.path / "made" / "cgroup.controllers").read_text().split()
    (place.path / "made").rmdir()
place.undo()
report["undone"] = state()
print(json.dumps(report))
"""

_USER = 54321


@pytest.fixture
def delegated() -> Iterator[tuple[Path, str]]:
    """A group of its own that may hand on one controller, and which that is."""
    tree = next((tree for tree in hierarchy.find() if tree.version == 2), None)
    if tree is None or os.geteuid() != 0:
        pytest.skip("there is no tree of version 2, or this user may make no groups in it")
    controller = min(tree.controllers - {"memory", "pids", "cpu"}, default="")
    if not controller:
        pytest.skip("the tree of version 2 has no controller that is of no use to others")
    handed_on = tree.top / "cgroup.subtree_control"
    before = handed_on.read_text().split()
    try:
        handed_on.write_text(f"+{controller}")
    except OSError as error:
        pytest.skip(f"{tree.top} can't hand on {controller}: {error}")
    group = tree.top / f"test-{os.getpid()}"
    group.mkdir()
    yield group, controller
    assert remove_tree(group), "something is left of it"
    if controller not in before:
        try:
            handed_on.write_text(f"-{controller}")
        except OSError:
            pass  # another test uses it


def _find(top: Path, own: Path, controller: str, user: int = 0) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(top), str(own), controller, str(user)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _give(group: Path, user: int) -> None:
    """Delegate a group, as a service manager does."""
    for path in (group, group / "cgroup.procs", group / "cgroup.subtree_control"):
        os.chown(path, user, user)


def test_a_process_that_is_alone_in_its_group_moves_into_a_leaf_of_it(delegated: tuple[Path, str]) -> None:
    group, controller = delegated
    report = _find(group, group, controller)
    assert (report["path"], report["controllers"]) == (str(group), [controller])
    assert report["found"] == {"inside": "leaf", "handed_on": [controller], "groups": ["leaf"]}
    assert report["offered"] == [controller]
    assert report["undone"] == {"inside": group.name, "handed_on": [], "groups": []}


def test_a_delegated_group_needs_no_privileges(delegated: tuple[Path, str]) -> None:
    group, controller = delegated
    _give(group, _USER)
    report = _find(group.parent, group, controller, _USER)
    assert (report["path"], report["controllers"]) == (str(group), [controller])
    assert report["offered"] == [controller]
    assert report["undone"] == {"inside": group.name, "handed_on": [], "groups": []}


def test_where_other_programs_share_its_group_the_one_above_is_used(delegated: tuple[Path, str]) -> None:
    group, controller = delegated
    (group / "cgroup.subtree_control").write_text(f"+{controller}")
    own = group / "session"
    own.mkdir()
    for path in (group, own):
        _give(path, _USER)
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            (own / "cgroup.procs").write_text(str(other.pid))
            report = _find(group, own, controller, _USER)
        finally:
            other.kill()
    assert (report["path"], report["controllers"]) == (str(group), [controller])
    assert report["found"] == {"inside": "session", "handed_on": [], "groups": []}, (
        "it was not left as it was"
    )
    assert report["offered"] == [controller]


def test_a_group_of_somebody_else_is_left_alone_and_said_to_be_of_no_use(delegated: tuple[Path, str]) -> None:
    group, controller = delegated
    report = _find(group, group, controller, _USER)
    assert report["controllers"] == []
    assert str(group) in report["cause"]
    assert report["found"] == {"inside": group.name, "handed_on": [], "groups": []}


_BOXES = """
import asyncio, json, sys
from pathlib import Path
from sandbox_local.isolation.base import BoxSpec, Command
from sandbox_local.isolation.limits import settings
from sandbox_local.isolation.limits.settings import Setting
from sandbox_local.isolation.namespaces import NamespaceBackend

own, controller, file = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
settings.CONTROLLERS = (controller,)
settings.of_box = lambda controller, version, limits: [Setting(file, "0")]
settings.of_all = lambda controller, version: []
(own / "cgroup.procs").write_text("0")

async def main():
    backend = NamespaceBackend()
    await backend.start()
    box = await backend.create(BoxSpec("box"))
    process = await box.spawn(Command(["sleep", "60"], "user"))
    found = {}
    for procs in own.rglob("cgroup.procs"):
        group = str(procs.parent.relative_to(own))
        names = [Path(f"/proc/{pid}/comm").read_text().strip() for pid in procs.read_text().split()]
        found[group] = [names, (procs.parent / file).read_text().strip() if group != "." else ""]
    versions = backend.enforcement.bounded
    await box.close()
    await backend.close()
    left = sorted(path.name for path in own.iterdir() if path.is_dir())
    print(json.dumps({"found": found, "versions": versions, "left": left}))

asyncio.run(main())
"""


def test_a_box_lives_in_a_group_of_version_2_and_leaves_nothing_of_it(delegated: tuple[Path, str]) -> None:
    group, controller = delegated
    file = min((path.name for path in group.glob(f"{controller}.*.max")), default="")
    if not file:
        pytest.skip(f"{controller} bounds nothing by a file that is known here")
    done = subprocess.run(
        [sys.executable, "-c", _BOXES, str(group), controller, file],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["versions"] == {controller: "control group, version 2"}
    [(names, bound)] = [entry for name, entry in report["found"].items() if name[-2:-1] == "/"]
    assert len(names) == 2
    assert "sandbox" in names
    assert bound == "0"
    servers = [entry[0] for name, entry in report["found"].items() if name.endswith(".server")]
    assert len(servers) == 1
    assert any("python" in name for name in servers[0])
    assert report["found"]["."][0] == []
    assert report["left"] == []


_ENTER = """
import os, sys
from pathlib import Path
from sandbox_local.isolation import syscalls
from sandbox_local.isolation.making import entering

group, may_be_born_there = sys.argv[1], sys.argv[2] == "yes"
if not may_be_born_there:
    def fork_into(fd):
        raise OSError(38, "not implemented")
    syscalls.fork_into = fork_into
entries = [os.open(group, os.O_RDONLY | os.O_DIRECTORY)]
pid = entering.fork(entries)
if pid == 0:
    print(Path("/proc/self/cgroup").read_text().split("::")[1].split()[0].endswith(group[-9:]), flush=True)
    entering.enter(entries)
    print(Path("/proc/self/cgroup").read_text().split("::")[1].split()[0].endswith(group[-9:]), flush=True)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1]))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.parametrize("may_be_born_there", [True, False])
def test_a_process_is_born_in_its_group_or_else_goes_there(
    delegated: tuple[Path, str], may_be_born_there: bool
) -> None:
    group, _ = delegated
    inner = group / "the-group"
    inner.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", _ENTER, str(inner), "yes" if may_be_born_there else "no"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(may_be_born_there), "True"]
