"""Control groups as files, in directories that stand for trees that this machine may not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox_local.cli.sizes import size
from sandbox_local.isolation.base import Limits, Usage
from sandbox_local.isolation.limits import hierarchy, settings, usage
from sandbox_local.isolation.limits.delegation import find
from sandbox_local.isolation.limits.enforcement import describe
from sandbox_local.isolation.limits.hierarchy import Hierarchy

_LIMITS = Limits(memory_bytes=1 << 30, processes=100, cpus=1.5)


def _process(directory: Path, groups: str, mounts: str) -> Path:
    proc = directory / "proc"
    proc.mkdir()
    (proc / "cgroup").write_text(groups)
    (proc / "mountinfo").write_text(mounts)
    return proc


def _mount(root: str, place: Path, kind: str, options: str) -> str:
    return f"30 24 0:26 {root} {place} rw,nosuid shared:9 - {kind} cgroup rw,{options}\n"


def test_a_desktop_has_one_tree_and_the_process_lies_deep_in_it(tmp_path: Path) -> None:
    own = tmp_path / "fs" / "user.slice" / "user-1000.slice"
    own.mkdir(parents=True)
    (tmp_path / "fs" / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    (own / "memory.max").write_text("max\n")
    (own.parent / "memory.max").write_text("1000000\n")
    proc = _process(
        tmp_path, "0::/user.slice/user-1000.slice\n", _mount("/", tmp_path / "fs", "cgroup2", "nsdelegate")
    )
    [tree] = hierarchy.find(proc)
    assert tree == Hierarchy(2, frozenset({"cpuset", "cpu", "io", "memory", "pids"}), tmp_path / "fs", own)
    assert hierarchy.lineage(tree) == [own, own.parent, tmp_path / "fs"]
    assert hierarchy.memory_bound(proc) == 1_000_000


def test_a_container_of_version_1_sees_its_part_of_trees_that_controllers_share(tmp_path: Path) -> None:
    for name in ("cpu,cpuacct", "memory"):
        (tmp_path / name / "sub").mkdir(parents=True)
    (tmp_path / "memory" / "sub" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("2000000\n")
    groups = "4:cpu,cpuacct:/docker/abc/sub\n3:memory:/docker/abc/sub\n2:pids:/elsewhere\n1:name=systemd:/\n"
    mounts = (
        _mount("/docker/abc", tmp_path / "cpu,cpuacct", "cgroup", "cpu,cpuacct")
        + _mount("/docker/abc", tmp_path / "memory", "cgroup", "memory")
        + _mount("/docker/abc", tmp_path / "pids", "cgroup", "pids")
    )
    found = hierarchy.find(_process(tmp_path, groups, mounts))
    assert [(tree.version, tree.controllers, tree.own) for tree in found] == [
        (1, frozenset({"cpu", "cpuacct"}), tmp_path / "cpu,cpuacct" / "sub"),
        (1, frozenset({"memory"}), tmp_path / "memory" / "sub"),
    ]
    assert hierarchy.memory_bound(tmp_path / "proc") == 2_000_000


def test_a_group_outside_of_the_namespace_is_out_of_reach(tmp_path: Path) -> None:
    (tmp_path / "fs").mkdir()
    (tmp_path / "fs" / "cgroup.controllers").write_text("memory\n")
    proc = _process(tmp_path, "0::/../other\n", _mount("/", tmp_path / "fs", "cgroup2", ""))
    assert hierarchy.find(proc) == []


def test_a_mount_with_a_space_in_its_path_is_found(tmp_path: Path) -> None:
    place = tmp_path / "a b"
    place.mkdir()
    mounts = _mount("/", Path(str(place).replace(" ", "\\040")), "cgroup", "pids")
    [tree] = hierarchy.find(_process(tmp_path, "1:pids:/\n", mounts))
    assert tree.own == place


def test_what_is_written_to_the_groups_of_a_box() -> None:
    def written(version: int) -> dict[str, str]:
        return {
            setting.file: setting.value
            for controller in settings.CONTROLLERS
            for setting in settings.of_box(controller, version, _LIMITS)
        }

    assert written(2) == {
        "memory.max": "1073741824",
        "memory.swap.max": "0",
        "pids.max": "132",
        "cpu.max": "150000 100000",
    }
    assert written(1) == {
        "memory.limit_in_bytes": "1073741824",
        "memory.memsw.limit_in_bytes": "1073741824",
        "pids.max": "132",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "150000",
    }
    assert settings.of_box("cpu", 2, Limits()) == []


@pytest.mark.parametrize(
    ("version", "memory", "cpu"),
    [
        (
            2,
            {"memory.current": "900", "memory.stat": "anon 200\nfile 500\nshmem 100\n"},
            {"cpu.stat": "usage_usec 2500000\n"},
        ),
        (
            1,
            {"memory.usage_in_bytes": "900", "memory.stat": "cache 500\nrss 200\nshmem 100\n"},
            {"cpuacct.usage": "2500000000\n"},
        ),
    ],
)
def test_what_groups_say_of_use(
    tmp_path: Path, version: int, memory: dict[str, str], cpu: dict[str, str]
) -> None:
    """Files of the box are shared memory to the kernel, and count as used; files of the host are a cache."""
    for name, content in {**memory, **cpu}.items():
        (tmp_path / name).write_text(content)
    directories = {"memory": tmp_path, "cpu": tmp_path}
    used = usage.read(directories, {"memory": version, "cpu": version})
    assert used == Usage(cpu_seconds=2.5, memory_used=500, memory_cache=400)
    assert usage.read({}, {}) == Usage()


def test_a_tree_that_has_not_got_what_is_wanted_is_said_to(tmp_path: Path) -> None:
    """A directory stands for the group: nothing can be enabled in it."""
    for name in ("cgroup.procs", "cgroup.subtree_control"):
        (tmp_path / name).write_text("")
    (tmp_path / "cgroup.controllers").write_text("cpuset\n")
    place = find(Hierarchy(2, frozenset({"cpuset"}), tmp_path, tmp_path), frozenset({"memory"}), "leaf")
    assert place.controllers == frozenset()
    assert "can't hand on memory: it has not got them itself" in place.cause
    assert not (tmp_path / "leaf").exists()


def test_what_is_enforced_is_put_into_words() -> None:
    both = describe({"memory": 2, "pids": 1}, {"cpu": "because"})
    assert both.mechanism == "control groups (version 1 and 2)"
    assert both.shortfall("memory") is None
    shortfall = both.shortfall("cpu")
    assert shortfall is not None
    assert shortfall.cause == "because"
    assert describe({}, {}).mechanism == "limits of processes"


@pytest.mark.parametrize(
    ("text", "count"), [("512M", 512 << 20), ("2g", 2 << 30), ("1.5GiB", 3 << 29), ("64kB", 65536), ("7", 7)]
)
def test_sizes(text: str, count: int) -> None:
    assert size(text) == count
