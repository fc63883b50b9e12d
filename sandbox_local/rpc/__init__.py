"""The RPC engine: handlers written once over protobuf messages, served as Connect and as gRPC."""

from sandbox_local.rpc.call import owns_deadline
from sandbox_local.rpc.codes import Code, RpcError
from sandbox_local.rpc.context import Context, basic_user
from sandbox_local.rpc.dispatch import Rpc
from sandbox_local.rpc.refusal import refuse

__all__ = ["Code", "Context", "Rpc", "RpcError", "basic_user", "owns_deadline", "refuse"]
