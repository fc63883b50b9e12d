"""Directories of a box that show files of the template or the host, with the box's own changes on top.

Each is an overlay. Where the kernel can, what lies below is id-mapped, so that it belongs to the box's root;
where it can't, the template is copied, and the host's files belong to nobody and can't be changed.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from sandbox_local.isolation import syscalls, tree
from sandbox_local.isolation.ids import Namespace
from sandbox_local.isolation.trial import works

_INITIAL_USER_NAMESPACE = 0xEFFFFFFD  # the inode number that every kernel gives it


class Layer(NamedTuple):
    """One such directory.

    Attributes:
        target: Its path relative to the box's root.
        template: The directory whose files are ours, or "".
        host: The directory whose files are the host's, or "".
        mapped: Which of the two are to be id-mapped.
        overlay: Whether it can be an overlay; otherwise the host's directory is shown as it is, read-only.
    """

    target: str
    template: str
    host: str
    mapped: frozenset[str] = frozenset()
    overlay: bool = True

    def settle(self, namespace: Namespace) -> Layer:
        """Find out by trial what this kernel can do for it. The answer holds for boxes of any namespace."""
        lowers = [path for path in (self.template, self.host) if path and namespace.ids.base]
        mapped = frozenset(path for path in lowers if works(syscalls.set_idmap, path, namespace.fd))
        settled = self._replace(mapped=mapped)
        return settled._replace(overlay=works(settled._try, namespace))

    def mount(self, namespace: Namespace, storage: str) -> None:
        """Mount it in the directory that is to be the box's root, the current one.

        Args:
            namespace: The user namespace of the box.
            storage: A directory for the box's own changes.
        """
        copied = self.template if namespace.ids.base and self.template not in self.mapped else ""
        lowers = [path for path in (self.template, self.host) if path and path != copied]
        tree.make_directories(self.target, namespace.ids)
        if not self.overlay or not lowers:
            if self.host:
                syscalls.bind(self.host, self.target, recursive=True)
            else:
                tree.copy(self.template, self.target, namespace.ids)
            return
        for path in self.mapped:
            syscalls.set_idmap(path, namespace.fd)
        name = self.target.replace("/", "-")
        upper, work = f"{storage}/{name}", f"{storage}/{name}.work"
        for path in (upper, work):
            os.mkdir(path, 0o755)
            namespace.ids.chown(path, 0, 0)
        if copied:
            tree.copy(copied, upper, namespace.ids)
        options = f"lowerdir={':'.join(lowers)},upperdir={upper},workdir={work}"
        if os.stat("/proc/self/ns/user").st_ino != _INITIAL_USER_NAMESPACE:
            options += ",userxattr"  # the other attributes are reserved for the host's root
        syscalls.mount("overlay", self.target, "overlay", data=options)

    def _try(self, namespace: Namespace) -> None:
        syscalls.mount("tmpfs", "/box", "tmpfs")
        os.chdir("/box")
        os.mkdir("storage")
        self.mount(namespace, "/box/storage")
