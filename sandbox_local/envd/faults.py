"""Failures of the box as every RPC of envd answers them."""

from __future__ import annotations

from sandbox_local.isolation.base import BoxGone, UnknownUser
from sandbox_local.rpc import Code, RpcError


def rpc_error(error: BoxGone | UnknownUser) -> RpcError:
    """The answer to a failure that has the same meaning whatever was asked for."""
    if isinstance(error, UnknownUser):
        return RpcError(Code.UNAUTHENTICATED, str(error))
    # Clients know a sandbox that has ended by these words.
    return RpcError(Code.UNAVAILABLE, "The sandbox was not found: it has ended")
