"""The stage: a small root that holds all of the host that any box may see, made once before the first box.

The zygote moves into it, so whatever it forks has nothing of the host in reach but this. It holds `/proc`,
`/dev` with harmless devices, `/host` (trees of the host, read-only), `/template` (what is the same in every
box), `/templates` (the store, read-only), and `/box`, on which each box mounts its own file system.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from sandbox_local.isolation import syscalls, tree
from sandbox_local.isolation.ids import Ids, Namespace
from sandbox_local.isolation.inside import sudo
from sandbox_local.isolation.making import etc, interpreter
from sandbox_local.isolation.making.interpreter import Python
from sandbox_local.isolation.making.layers import Layer, Template

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")

_STAGE = "/sys"
"""Where the stage is built: a directory that every host has and nothing is needed of."""

TEMPLATES = "/templates"
"""Where the store of templates is shown, so that those imported later are found too."""

SUDO_LAYER = "sudo"
"""The part of `/template` that is laid over a template whose own sudo can't work."""

_TEMPLATE = "/template"
RUNSC = "/host/runsc"
"""Where gVisor's program lies, if boxes need it."""
_LOCAL = "local"
_USR_PARTS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


class Stage(NamedTuple):
    """What boxes are made of.

    Attributes:
        template: What is the same in every box.
        layers: Directories, parents before what lies in them.
        links: Links at a box's root, as on the host: /bin -> usr/bin and the like.
        binds: Files of the stage to show, by their paths in a box.
        masks: Directories of a box to hide behind empty ones.
    """

    template: Template
    layers: list[Layer]
    links: dict[str, str]
    binds: dict[str, str]
    masks: list[str]

    def settle(self, namespace: Namespace) -> Stage:
        """Find out by trial what this kernel can do for boxes with namespaces like this one."""
        template = self.template.settle(namespace)
        layers = [layer.settle(namespace, template.of(namespace.ids)) for layer in self.layers]
        return self._replace(template=template, layers=layers)

    def of(self, ids: Ids) -> Stage:
        """The stage for a box with these ids."""
        return self._replace(template=self.template.of(ids))


def build(ids: Ids, python: Python, *, sudo_shim: bool, templates: str | None, runsc: str = "") -> Stage:
    """Build the stage and move into it; for a process in mount and PID namespaces of its own.

    Args:
        ids: The ids of a box.
        python: The Python of the boxes.
        sudo_shim: Whether boxes need our own sudo.
        templates: The host's directory of templates.
        runsc: Where gVisor's program is, if boxes need it.

    Raises:
        OSError: The kernel refused a step.
    """
    own = Ids(0, ids.size)  # what lies here is mapped, or copied, to the ids of each box later
    syscalls.mount("tmpfs", _STAGE, "tmpfs", data="mode=0755")
    for name in ("box", "dev", "host", "proc", "template", "templates"):
        os.mkdir(f"{_STAGE}/{name}")
    syscalls.mount("proc", f"{_STAGE}/proc", "proc")
    for name in DEVICES:
        tree.bind_file(f"/dev/{name}", f"{_STAGE}/dev/{name}", own)
    _build_template(own, python, sudo_shim)
    if templates:
        syscalls.bind(templates, f"{_STAGE}{TEMPLATES}")
        syscalls.set_readonly(f"{_STAGE}{TEMPLATES}")
    links = {part: os.readlink(f"/{part}") for part in _USR_PARTS if os.path.islink(f"/{part}")}
    layers = [Layer("etc", "etc", ""), *_bind_trees(python)]
    binds = {}
    if python.program:
        _show_program(python, f"{_STAGE}/host/python", own)
        binds[python.path] = "/host/python"
    if runsc:
        tree.bind_file(runsc, f"{_STAGE}{RUNSC}", own)
        syscalls.set_readonly(f"{_STAGE}{RUNSC}")
    masks = python.masks()
    syscalls.bind(_STAGE, _STAGE, recursive=True)
    syscalls.pivot_root(_STAGE)
    return Stage(Template(_TEMPLATE, mapped=False), layers, links, binds, masks)


def _build_template(ids: Ids, python: Python, sudo_shim: bool) -> None:
    etc.build(f"{_STAGE}{_TEMPLATE}/etc", "/etc", ids)
    local = f"{_STAGE}{_TEMPLATE}/{_LOCAL}"
    tree.make_directories(local, ids)  # it is a layer also where there is nothing to put into it
    for path, starter in python.starters().items():
        tree.write(f"{local}/{path}", starter, ids, mode=0o755)
    if sudo_shim:
        sudo.install(local, "/usr/local", python.path, ids)
    sudo.install(f"{_STAGE}{_TEMPLATE}/{SUDO_LAYER}/usr", "/usr", None, ids)


def _show_program(python: Python, target: str, ids: Ids) -> None:
    changed = python.relocated()
    if changed:
        tree.write(target, changed, ids, mode=0o755)
        syscalls.bind(target, target)
    else:
        tree.bind_file(python.program, target, ids)
    syscalls.set_readonly(target)


def _bind_trees(python: Python) -> Iterator[Layer]:
    trees = [
        part for part in ("usr", *_USR_PARTS) if os.path.isdir(f"/{part}") and not os.path.islink(f"/{part}")
    ]
    mounted = [path for tree in trees for path in _mounts_below(tree)]
    sources = {path: f"/{path}" for path in (*trees, *mounted, "usr/local")}
    if python.library:
        sources[f"{interpreter.PREFIX}/lib"] = python.library
    for number, (target, source) in enumerate(sorted(sources.items())):
        host = f"/host/{number}"
        os.mkdir(_STAGE + host)
        if os.path.isdir(source):  # /usr/local may be missing
            syscalls.bind(source, _STAGE + host, recursive=True)
            syscalls.set_readonly(_STAGE + host)
        yield Layer(target, _LOCAL if target == "usr/local" else "", host)


def _mounts_below(tree: str) -> Iterator[str]:
    """The directories in a tree of the host on which something else is mounted."""
    with open("/proc/self/mountinfo", "rb") as lines:
        for line in lines:
            point = os.fsdecode(line.split()[4].decode("unicode_escape").encode("latin-1"))
            if point.startswith(f"/{tree}/") and os.path.isdir(point):
                yield point[1:]
