"""The root of a box that starts from a template of the store: its files, and the box's changes on top."""

from __future__ import annotations

import errno
import os
import stat

from sandbox_local.isolation import syscalls, tree
from sandbox_local.isolation.ids import Namespace
from sandbox_local.isolation.making.layers import Layer
from sandbox_local.isolation.making.stage import SUDO_LAYER, TEMPLATES, Stage

_FRESH = ("dev", "run")


def mount(stage: Stage, namespace: Namespace, build: str, root: str, storage: str) -> None:
    """Mount it, and empty directories on what a box has of its own.

    Args:
        stage: What boxes are made of.
        namespace: The box's user namespace.
        build: The build of the template.
        root: Where.
        storage: A directory for the box's changes.

    Raises:
        OSError: The kernel can't show these files with the owners that they have; it says what to do.
    """
    rootfs = f"{TEMPLATES}/{build}/rootfs"
    owner = os.stat(rootfs).st_uid
    mapped = owner == 0 and namespace.ids.base > 0
    if not mapped and owner != namespace.ids.base:
        raise OSError(
            errno.EPERM,
            "the template was imported with other user ids than this server's sandboxes have: import it "
            "again, as the user of the server",
        )
    own_sudo = namespace.ids.size > 1 and _is_setuid(f"{rootfs}/usr/bin/sudo")
    layer = Layer(root, "" if own_sudo else SUDO_LAYER, rootfs, mapped)
    stage.template.prepare(namespace)
    try:
        layer.mount(namespace, stage.template, storage)
    except OSError as error:
        raise OSError(
            error.errno,
            f"this kernel can't show the template's files with their owners ({error.strerror}): keep "
            "templates on a file system for which it can, such as ext4, xfs or btrfs (--templates), import "
            "them again as the user of the server, or use Linux 5.19 or later",
        ) from None
    for name in _FRESH:
        fresh = f"{storage}/own-{name}"
        tree.make_directories(fresh, namespace.ids)
        syscalls.bind(fresh, f"{root}/{name}")


def _is_setuid(path: str) -> bool:
    try:
        return bool(os.lstat(path).st_mode & stat.S_ISUID)
    except OSError:
        return False
