"""The embedded local sandbox server: E2B-compatible sandboxes made of kernel namespaces on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sandbox_local.isolation.errors import IsolationError
    from sandbox_local.server import LocalServer, ServerError

__all__ = ["IsolationError", "LocalServer", "ServerError"]

_HOMES = {
    "IsolationError": "sandbox_local.isolation.errors",
    "LocalServer": "sandbox_local.server",
    "ServerError": "sandbox_local.server",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
