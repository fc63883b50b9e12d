"""The root file system of one box: what the stage holds, on a file system of the box's own.

Everything that the box writes lies on one tmpfs of bounded size, so nothing of it is ever on the host's disk
and all of it is gone with the box's last process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from sandbox_local.isolation import syscalls, tree
from sandbox_local.isolation.ids import Ids, Namespace
from sandbox_local.isolation.making import etc, prepared
from sandbox_local.isolation.making.stage import DEVICES, Stage
from sandbox_local.isolation.making.wanted import Wanted

_ROOT = "/box/root"
_STORAGE = "/box/storage"
_FEWEST_BYTES = 1 << 20
_FEWEST_INODES = 1 << 14
_BYTES_PER_INODE = 8 << 10


class _Directory(NamedTuple):
    path: str
    mode: int = 0o755
    owner: int = 0


_USER = 1000
_DIRECTORIES = (
    *map(_Directory, ("dev", "etc", "home", "media", "mnt", "opt", "proc", "run")),
    *map(
        _Directory, ("srv", "sys", "usr", "var", "var/backups", "var/cache", "var/lib", "var/log", "var/mail")
    ),
    *map(_Directory, ("var/opt", "var/spool", "var/www")),
    _Directory("home/user", 0o755, _USER),
    _Directory("root", 0o700),
    _Directory("tmp", 0o1777),
    _Directory("var/local", 0o2775),
    _Directory("var/tmp", 0o1777),
)
_OWN_DIRECTORIES = (  # of every box, whatever it starts from
    _Directory("dev/pts"),
    _Directory("dev/shm", 0o1777),
    _Directory("run/lock", 0o1777),
)
_LINKS = {"var/lock": "/run/lock", "var/run": "/run"}
_OWN_LINKS = {
    "dev/fd": "/proc/self/fd",
    "dev/ptmx": "pts/ptmx",
    "dev/stderr": "/proc/self/fd/2",
    "dev/stdin": "/proc/self/fd/0",
    "dev/stdout": "/proc/self/fd/1",
}
_HIDDEN_PROC_FILES = (
    "kallsyms",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "sysrq-trigger",
    "timer_list",
)
_TTY_GROUP = 5
_TERMINALS = 256  # of one box; all boxes together have about 3000
_PROC_FLAGS = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC


def enter(stage: Stage, namespace: Namespace, wanted: Wanted) -> None:
    """Build the root of a box and move into it; see `build`."""
    build(stage, namespace, wanted)
    _mount_proc()
    syscalls.pivot_root(".")
    # Not before: what links of a template lead to is to be looked for in the box.
    etc.write_host_name("/etc", wanted.hostname, namespace.ids)


def build(stage: Stage, namespace: Namespace, wanted: Wanted) -> None:
    """Build the root of a box, without /proc; for its first process, still outside its user namespace.

    Args:
        stage: What the box is made of.
        namespace: The box's user namespace.
        wanted: What the box is to be.

    Raises:
        OSError: The kernel refused a step.
    """
    size = max(wanted.disk_bytes, _FEWEST_BYTES)  # 0 would mean no bound
    inodes = max(size // _BYTES_PER_INODE, _FEWEST_INODES)
    syscalls.mount("tmpfs", "/box", "tmpfs", data=f"mode=0755,size={size},nr_inodes={inodes}")
    os.mkdir(_ROOT)
    os.mkdir(_STORAGE)
    if wanted.template:
        prepared.mount(stage, namespace, wanted.template, _ROOT, _STORAGE)
        os.chdir(_ROOT)
        _make_directories(_OWN_DIRECTORIES, namespace.ids)
        _make_links(_OWN_LINKS, namespace.ids)
    else:
        _show_host(stage, namespace)
    _mount_devices(namespace.ids, max(wanted.shm_bytes, _FEWEST_BYTES))


def _show_host(stage: Stage, namespace: Namespace) -> None:
    syscalls.bind(_ROOT, _ROOT)
    os.chdir(_ROOT)
    _make_skeleton(stage, namespace.ids)
    stage.template.prepare(namespace)
    for layer in stage.layers:
        layer.mount(namespace, stage.template, _STORAGE)
    for path, source in stage.binds.items():
        tree.bind_file(source, path.lstrip("/"), namespace.ids)
    for number, path in enumerate(stage.masks):
        empty = f"{_STORAGE}/mask{number}"
        tree.make_directories(empty, namespace.ids)
        syscalls.bind(empty, path)


def _make_skeleton(stage: Stage, ids: Ids) -> None:
    ids.chown(".", 0, 0)
    _make_directories((*_DIRECTORIES, *_OWN_DIRECTORIES), ids)
    _make_links({**_LINKS, **_OWN_LINKS, **stage.links}, ids)
    for home, owner in (("root", 0), ("home/user", _USER)):
        for name, content in etc.HOME_FILES.items():
            tree.write(f"{home}/{name}", content.encode(), ids)
            ids.chown(f"{home}/{name}", owner, owner)


def _make_directories(directories: Iterable[_Directory], ids: Ids) -> None:
    for path, mode, owner in directories:
        os.mkdir(path)
        ids.chown(path, owner, owner)
        os.chmod(path, mode)


def _make_links(links: dict[str, str], ids: Ids) -> None:
    for path, target in links.items():
        tree.link(path, target, ids)


def _mount_devices(ids: Ids, shm_bytes: int) -> None:
    for name in DEVICES:
        tree.bind_file(f"/dev/{name}", f"dev/{name}", ids)
    options = f"newinstance,ptmxmode=0666,mode=0620,gid={ids.outer(_TTY_GROUP)},max={_TERMINALS}"
    syscalls.mount("devpts", "dev/pts", "devpts", syscalls.MS_NOSUID | syscalls.MS_NOEXEC, options)
    shm = f"mode=1777,uid={ids.base},gid={ids.base},size={shm_bytes}"
    syscalls.mount("tmpfs", "dev/shm", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, shm)


def _mount_proc() -> None:
    syscalls.mount("proc", "proc", "proc", _PROC_FLAGS)
    for name in _HIDDEN_PROC_FILES:
        try:
            syscalls.bind("/dev/null", f"proc/{name}")
        except FileNotFoundError:
            pass  # this kernel does not have it
