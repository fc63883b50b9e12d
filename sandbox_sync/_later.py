"""Modules that are loaded when something of them is first used.

So `Sandbox` can be imported, named in a class statement or passed to a worker without loading what talks to
servers, which takes most of the time of an import; and what it loads at the first call, it loads as any
import does: once, whichever thread is first.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


class later:
    """Stands for a module, whose name is given in full.

    Type checkers are to see an import in its place: `if TYPE_CHECKING: from package import module`, and in
    the branch that runs `else: module = later("package.module")`.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)

    def __repr__(self) -> str:
        return f"later({self._name!r})"
