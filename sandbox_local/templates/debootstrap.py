"""A root file system of Debian's packages, or those of a system made of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from sandbox_local.templates.removal import sweep
from sandbox_local.templates.store import ROOTFS, Store, TemplateError

_ALWAYS = ("ca-certificates", "sudo")


@contextlib.contextmanager
def built(store: Store, suite: str, mirror: str | None, include: str) -> Iterator[Path]:
    """Have debootstrap build one, for as long as it takes to import it.

    Raises:
        TemplateError: It isn't installed, this user may not run it, or it failed.
    """
    program = shutil.which("debootstrap")
    if os.geteuid() != 0:
        raise TemplateError(
            "debootstrap needs root, to make device nodes and change owners: run this as root, or import "
            "what it or `docker export` has made elsewhere"
        )
    if program is None:
        raise TemplateError("debootstrap is not installed; `apt install debootstrap` as root")
    if suite.startswith("-") or (mirror or "").startswith("-"):
        raise TemplateError("no release and no mirror begins with '-'")
    store.make()
    sweep(store)
    build_id, lock = store.begin()
    try:
        rootfs = store.path / build_id / ROOTFS
        packages = ",".join(filter(None, (*_ALWAYS, include)))
        command = [program, "--variant=minbase", f"--include={packages}", suite, str(rootfs)]
        done = subprocess.run(
            [*command, mirror] if mirror else command, check=False, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            raise TemplateError(f"debootstrap failed with exit code {done.returncode}; it said why above")
        for package in (rootfs / "var/cache/apt/archives").glob("*.deb"):
            package.unlink()
        yield rootfs
    finally:
        lock.close()
        sweep(store)
