"""How the inner agent gets into the container: as source text over its socket, so that no file shows it."""

from __future__ import annotations

import os

_ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
_MODULES = (
    *("errors", "ids", "syscalls", "tree", "users", "wire", "gvisor", "gvisor.inner", "gvisor.pump"),
    *("gvisor.processes", "gvisor.program", "gvisor.supervisor", "inside", "inside.children", "inside.kill"),
    *("inside.loop", "inside.reaping", "inside.seccomp", "inside.spawn", "inside.standing"),
    *("inside.stdio", "inside.sudo", "inside.tags"),
)

# It reads the sources, one after the other, lets modules be imported from them, and starts.
_BOOTSTRAP = """\
import importlib.abc, importlib.util, json, os, sys
def read(size):
    data = b""
    while len(data) < size:
        data += os.read(0, size - len(data)) or os._exit(1)
    return data
sources = json.loads(read(int(read(10))))
class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        if name in sources:
            return importlib.util.spec_from_loader(name, self, is_package=sources[name][1])
    def exec_module(self, module):
        exec(compile(sources[module.__name__][0], module.__name__, "exec"), module.__dict__)
sys.meta_path.append(Finder())
from sandbox_local.isolation.gvisor import inner
inner.main()
"""


def argv(python: str) -> list[str]:
    """The command line of the inner agent.

    Args:
        python: The path of Python in the box.
    """
    return [python, "-ISE", "-c", _BOOTSTRAP]


def modules() -> dict[str, tuple[str, bool]]:
    """The source of each module that the inner agent needs, and whether it is a package."""
    found = {}
    for name in (
        "sandbox_local",
        "sandbox_local.isolation",
        *(f"sandbox_local.isolation.{m}" for m in _MODULES),
    ):
        path = os.path.join(_ROOT, *name.split("."))
        package = os.path.isdir(path)
        with open(f"{path}/__init__.py" if package else f"{path}.py", encoding="utf-8") as file:
            found[name] = file.read(), package
    return found
