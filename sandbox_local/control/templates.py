"""The templates that a sandbox can be made from: this machine's own system, and those of the store."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sandbox_local.http import HttpError
from sandbox_local.templates.store import Store, Stored, TemplateError

_SWEEP = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from sandbox_local.templates.removal import main; main(sys.argv[2])"
)
_IMPORT_ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))


@dataclass(frozen=True)
class Template:
    """A root filesystem that sandboxes start from.

    Attributes:
        template_id: Its id.
        alias: The name that people use.
        tags: Tags that name its only build.
        catalog: What it is from, or None for this machine's own system.
    """

    template_id: str
    alias: str
    tags: frozenset[str] = frozenset({"default", "latest"})
    catalog: Catalog | None = field(default=None, repr=False, compare=False)

    def is_called(self, reference: str) -> bool:
        """Whether `reference`, without a tag, is the id or the name of this template."""
        return reference in (self.template_id, self.alias)

    async def lease(self) -> Lease:
        """Keep its present build for a sandbox.

        Raises:
            HttpError: 404, it was deleted.
        """
        return await self.catalog.lease(self) if self.catalog else Lease()


BASE = Template(template_id="localbase00000000000", alias="base")


class Lease:
    """The build that a sandbox starts from, kept from removal until this is given back."""

    def __init__(self, build_id: str = "", give_back: Callable[[], None] = lambda: None) -> None:
        self.build_id = build_id
        self._give_back = give_back

    def close(self) -> None:
        """The sandbox has ended, or was not made."""
        self._give_back()


class Catalog:
    """What there is.

    Args:
        store: Where templates beside `base` are kept, or None if there are none.
    """

    def __init__(self, store: Store | None = None) -> None:
        self._store = store

    def all(self) -> list[tuple[Template, Stored | None]]:
        """Every template, and what is stored of it."""
        return list(self._each())

    def _each(self) -> Iterator[tuple[Template, Stored | None]]:
        yield BASE, None  # which most want: the store is not looked into for them
        for kept in self._store.templates() if self._store else ():
            yield Template(kept.template_id, kept.name, catalog=self), kept

    def find(self, reference: str) -> tuple[Template, Stored | None]:
        """The template that a request names, and what is stored of it.

        Args:
            reference: `name`, `id`, `name:tag` or `id:tag`.

        Raises:
            HttpError: 404, there is no such template on this machine.
        """
        name, _, tag = reference.partition(":")
        known = []
        for template, stored in self._each():
            if template.is_called(name) and (not tag or tag in template.tags):
                return template, stored
            known.append(template.alias)
        raise HttpError(
            404, f"template {reference!r} was not found; this local server has: {', '.join(known)}"
        )

    def resolve(self, reference: str) -> Template:
        """The template that a request names. Raises as `find`."""
        return self.find(reference)[0]

    async def lease(self, template: Template) -> Lease:
        """See `Template.lease`."""
        assert self._store is not None
        try:
            stored, lock = await asyncio.to_thread(self._store.lease, template.alias)
        except TemplateError as error:
            raise HttpError(404, str(error)) from None

        def give_back() -> None:
            lock.close()
            self._sweep()

        return Lease(stored.build_id, give_back)

    def delete(self, stored: Stored) -> None:
        """Delete a template; sandboxes that live from it go on.

        Raises:
            HttpError: 404, it is gone already.
        """
        assert self._store is not None
        try:
            self._store.delete(stored.name)
        except TemplateError as error:
            raise HttpError(404, str(error)) from None
        self._sweep()

    def _sweep(self) -> None:
        threading.Thread(target=_sweep, args=(self._store,), daemon=True).start()


def _sweep(store: Store) -> None:
    """Have builds removed that no template has and no sandbox uses, by a process that may take time."""
    found = store.leftovers()
    for _, lock in found:
        lock.close()
    if found:
        command = [sys.executable, "-S", "-E", "-I", "-c", _SWEEP, _IMPORT_ROOT, str(store.path)]
        subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
