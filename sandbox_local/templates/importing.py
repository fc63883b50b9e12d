"""Bringing a root file system in as a template."""

from __future__ import annotations

import gzip  # noqa: F401  and the others: nothing can be imported where the archive is unpacked
import os
from pathlib import Path
from typing import Any

from sandbox_local.isolation.ids import Ids
from sandbox_local.templates import confined, sources
from sandbox_local.templates.archive import Unpacker
from sandbox_local.templates.removal import sweep
from sandbox_local.templates.store import ROOTFS, Store, Stored, TemplateError, check_name
from sandbox_local.templates.usable import machine, make_usable

MAX_BYTES = 16 << 30


def import_template(store: Store, name: str, source: Path, max_bytes: int = MAX_BYTES) -> tuple[Stored, int]:
    """Make, or make anew, a template of an archive or a directory.

    It is there as a whole or not at all. What earlier imports left when they were interrupted is removed.

    Args:
        store: Where it is to be kept.
        name: What it is to be called.
        source: A tar archive, plain or compressed by gzip, bzip2, xz or zstd, or a directory.
        max_bytes: Bound of what its files may hold.

    Returns:
        The template, and how many device nodes were left out.

    Raises:
        TemplateError: It can't be a template; the message says why.
    """
    check_name(name)
    if not source.exists():
        raise TemplateError(f"there is no file or directory {source}")
    store.make()
    sweep(store)
    build_id, lock = store.begin()
    try:
        rootfs = store.path / build_id / ROOTFS
        rootfs.mkdir()
        own_machine = machine()
        with sources.opened(source) as file:

            def unpack(ids: Ids) -> dict[str, Any]:
                unpacked = Unpacker(file, ids, max_bytes).run()
                make_usable(ids, own_machine)
                return unpacked._asdict()

            told = confined.run(unpack, os.fspath(rootfs))
        os.sync()  # or a loss of power might leave a template that lacks files
        return store.publish(name, build_id, told["bytes"], told["files"]), told["devices"]
    except OSError as error:
        raise TemplateError(f"{source} can't be imported: {error}") from None
    finally:
        lock.close()
        sweep(store)
