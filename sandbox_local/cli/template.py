"""`sandbox_local template`: what sandboxes can be made of, beside this machine's own system."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from sandbox_local.cli.sizes import size
from sandbox_local.templates import debootstrap
from sandbox_local.templates.importing import MAX_BYTES, import_template
from sandbox_local.templates.removal import sweep
from sandbox_local.templates.store import (
    VARIABLE,
    Store,
    Stored,
    TemplateError,
    check_name,
    default_directory,
)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add this command to the command line."""
    parser = commands.add_parser("template", help="bring in, list and delete templates")
    actions = parser.add_subparsers(required=True, metavar="action")
    importing = _add(actions, "import", _import, "make a template of a root file system")
    importing.add_argument("name", help="what to call it; a template of that name is replaced")
    importing.add_argument(
        "source",
        type=Path,
        metavar="TARBALL|DIR",
        help="a tar archive, as of `docker export`, plain or compressed by gzip, bzip2, xz or zstd; "
        "or a directory",
    )
    importing.add_argument(
        "--max-size", type=size, default=MAX_BYTES, help="bound of what its files may hold (default: 16G)"
    )
    building = _add(actions, "build", _build, "make a template from packages")
    building.add_argument("name", help="what to call it; a template of that name is replaced")
    building.add_argument(
        "--debootstrap",
        action="store_true",
        required=True,
        help="of Debian or Ubuntu, by debootstrap, as root",
    )
    building.add_argument("--suite", default="stable", help="their release (default: stable)")
    building.add_argument("--mirror", metavar="URL", help="where to get them (default: debootstrap's own)")
    building.add_argument(
        "--include", default="", metavar="PACKAGES", help="more packages, separated by commas"
    )
    listing = _add(actions, "list", _list, "list the templates")
    listing.add_argument("--json", action="store_true", help="as JSON, with all that is known")
    deleting = _add(actions, "delete", _delete, "delete a template; sandboxes that live from it go on")
    deleting.add_argument("name", help="its name")


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where templates are kept."""
    default = default_directory(os.environ)
    parser.add_argument(
        "--templates",
        type=Path,
        default=default,
        metavar="DIR",
        help=f"where templates are kept (default: {VARIABLE}, or {default or 'nowhere: there is no home'})",
    )


def _add(
    actions: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace, Store], None],
    text: str,
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=text)
    add_store(parser)

    def guarded(options: argparse.Namespace) -> int:
        try:
            if options.templates is None:
                raise TemplateError(
                    "this user has no home directory; say where templates are kept: --templates"
                )
            run(options, Store(options.templates.absolute()))
        except TemplateError as error:
            print(f"sandbox_local template {name}: {error}", file=sys.stderr)
            return 1
        return 0

    parser.set_defaults(run=guarded)
    return parser


def _import(options: argparse.Namespace, store: Store) -> None:
    _tell(*import_template(store, options.name, options.source, options.max_size))


def _build(options: argparse.Namespace, store: Store) -> None:
    check_name(options.name)
    with debootstrap.built(store, options.suite, options.mirror, options.include) as directory:
        _tell(*import_template(store, options.name, directory))


def _tell(stored: Stored, devices: int) -> None:
    left_out = f"; {devices} device nodes left out: sandboxes have their own" if devices else ""
    print(f"{stored.name} ({stored.template_id}): {stored.files} files, {stored.bytes >> 20} MiB{left_out}")


def _list(options: argparse.Namespace, store: Store) -> None:
    found = store.templates()
    if options.json:
        print(
            json.dumps([{"template_id": stored.template_id, **asdict(stored)} for stored in found], indent=2)
        )
        return
    for stored in found:
        print(
            f"{stored.name:24} {stored.template_id}  {stored.bytes >> 20:>6} MiB  {stored.updated_at[:19]}Z"
        )


def _delete(options: argparse.Namespace, store: Store) -> None:
    store.delete(options.name)
    sweep(store)
