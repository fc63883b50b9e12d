"""Directories of a box that show files of the template or the host, with the box's own changes on top.

Each is an overlay. Where the kernel can, what lies below is id-mapped, so that it belongs to the box's root;
where it can't, a template is copied for each range of ids, and the host's files can't be changed.
"""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from sandbox_local.isolation import syscalls, tree
from sandbox_local.isolation.ids import Ids, Namespace
from sandbox_local.isolation.making.trial import works

_INITIAL_USER_NAMESPACE = 0xEFFFFFFD  # the inode number that every kernel gives it


class Template(NamedTuple):
    """What is the same in every box, as a directory with one directory for each layer.

    Attributes:
        path: Where it lies.
        mapped: Whether it is to be id-mapped; otherwise it has the owners of the box.
    """

    path: str
    mapped: bool

    def settle(self, namespace: Namespace) -> Template:
        """Find out by trial whether this kernel can map it for any namespace like this one."""
        return self._replace(
            mapped=bool(namespace.ids.base) and works(syscalls.set_idmap, self.path, namespace.fd)
        )

    def of(self, ids: Ids) -> Template:
        """The template for a box with these ids: this one, or a copy, made when it is first asked for."""
        if self.mapped or not ids.base:
            return self
        path = f"{self.path}-{ids.base}"
        if not os.path.isdir(path):
            tree.make_directories(path, ids)
            tree.copy(self.path, path, ids)
        return Template(path, mapped=False)

    def prepare(self, namespace: Namespace) -> None:
        """Make it ready to be shown in a box; for the box's first process, before any layer."""
        if self.mapped:
            syscalls.set_idmap(self.path, namespace.fd)


class Layer(NamedTuple):
    """One such directory.

    Attributes:
        target: Its path relative to the box's root.
        template: The name of its part of the template, or "".
        host: The directory whose files are the host's, or "".
        mapped: Whether the latter is to be id-mapped.
        overlay: Whether it can be an overlay; otherwise the host's directory is shown as it is, read-only.
    """

    target: str
    template: str
    host: str
    mapped: bool = False
    overlay: bool = True

    def settle(self, namespace: Namespace, template: Template) -> Layer:
        """Find out by trial what this kernel can do for it, for any namespace like this one.

        Raises:
            OSError: It can do nothing.
        """
        mapped = bool(self.host and namespace.ids.base) and works(syscalls.set_idmap, self.host, namespace.fd)
        settled = self._replace(mapped=mapped)
        overlay = works(settled._try, namespace, template)
        if not overlay and not self.host:
            raise OSError(errno.ENODEV, "an overlay file system can't be mounted")
        return settled._replace(overlay=overlay)

    def mount(self, namespace: Namespace, template: Template, storage: str) -> None:
        """Mount it in the directory that is to be the box's root, the current one.

        Args:
            namespace: The user namespace of the box.
            template: The template for that namespace.
            storage: A directory for the box's own changes.
        """
        ours = f"{template.path}/{self.template}" if self.template else ""
        tree.make_directories(self.target, namespace.ids)
        if not self.overlay:
            syscalls.bind(self.host, self.target, recursive=True)
            return
        if self.mapped:
            syscalls.set_idmap(self.host, namespace.fd)
        name = self.target.replace("/", "-")
        upper, work = f"{storage}/{name}", f"{storage}/{name}.work"
        for path in (upper, work):
            tree.make_directories(path, namespace.ids)
        options = f"lowerdir={':'.join(filter(None, (ours, self.host)))},upperdir={upper},workdir={work}"
        if os.stat("/proc/self/ns/user").st_ino != _INITIAL_USER_NAMESPACE:
            options += ",userxattr"  # the other attributes are reserved for the host's root
        syscalls.mount("overlay", self.target, "overlay", data=options)

    def _try(self, namespace: Namespace, template: Template) -> None:
        syscalls.mount("tmpfs", "/box", "tmpfs")
        os.chdir("/box")
        os.mkdir("storage")
        template.prepare(namespace)
        self.mount(namespace, template, "/box/storage")
