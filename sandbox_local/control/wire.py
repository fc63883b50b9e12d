"""Between the models of the REST contract and what the registry knows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from pydantic import ValidationError
from sandbox_sync_rest.models.listed_sandbox import ListedSandbox
from sandbox_sync_rest.models.new_sandbox import NewSandbox
from sandbox_sync_rest.models.new_sandbox_v2 import NewSandboxV2
from sandbox_sync_rest.models.sandbox import Sandbox as SandboxAnswer
from sandbox_sync_rest.models.sandbox_detail import SandboxDetail
from sandbox_sync_rest.models.sandbox_lifecycle import SandboxLifecycle
from sandbox_sync_rest.models.sandbox_network_config import SandboxNetworkConfig
from sandbox_sync_rest.types import Model

from sandbox_local.control.errors import BadRequest, Unsupported
from sandbox_local.control.network import policy_of
from sandbox_local.control.plan import Plan
from sandbox_local.control.registry import Sandbox, State
from sandbox_local.control.templates import Catalog
from sandbox_local.http import Request, Response

# Version of the envd whose interface this server has; clients decide by it what they may ask for.
ENVD_VERSION = "0.6.13"

# Required by the contract, and of no meaning any more.
_CLIENT_ID = "6532622b"

_BODY_BYTES = 1 << 20

_NO_COLD_START = (
    "to go on from the files without the memory, a sandbox would have to be started anew; this local server "
    "can only let its processes stand still"
)

M = TypeVar("M", bound=Model)


# Requests


async def read(request: Request, model: type[M]) -> M:
    """The body of a request; an empty one is as `{}`.

    Raises:
        BadRequest: It is not JSON, or breaks the contract; the message names the field.
        BodyTooLarge: It is longer than 1 MiB.
    """
    text = await request.body.read(_BODY_BYTES)
    try:
        return model.model_validate_json(text.strip() or b"{}", strict=True)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, problem["loc"])) or "the request body"
        raise BadRequest(f"{where}: {problem['msg']}") from None


def sandbox_id(text: str) -> str:
    """The id in a path, where it may stand with the client id behind it.

    Raises:
        BadRequest: It can't be one.
    """
    match = re.fullmatch(r"([a-z0-9]+)(?:-[a-z0-9]+)?", text)
    if match is None:
        raise BadRequest(f"sandboxID: {text!r} is not the id of a sandbox: letters a to z and digits")
    return match[1]


def plan(body: NewSandbox | NewSandboxV2, catalog: Catalog, *, internet: bool) -> Plan:
    """What a create request asks for.

    Args:
        body: The request.
        catalog: The templates that there are.
        internet: Whether this server gives sandboxes a network.

    Raises:
        HttpError: That is wrong (400), names an unknown template (404), or can't be had here (501).
    """
    for field, reason in _beyond_us(body):
        raise Unsupported(f"{field}: {reason}")
    return Plan(
        template=catalog.resolve(body.template_id),
        timeout=body.timeout,
        secure=body.secure is True if isinstance(body, NewSandbox) else True,
        public_traffic=body.network is None or body.network.allow_public_traffic is not False,
        policy=policy_of(body, internet=internet),
        auto_pause=body.auto_pause,
        auto_resume=body.auto_resume is not None and body.auto_resume.enabled,
        metadata=body.metadata or {},
        env_vars=body.env_vars or {},
    )


def require_memory(memory: bool | None) -> None:
    """Refuse to pause or resume without the memory.

    Raises:
        Unsupported: `memory` is False.
    """
    if memory is False:
        raise Unsupported(f"memory: {_NO_COLD_START}")


def _beyond_us(body: NewSandbox | NewSandboxV2) -> Iterable[tuple[str, str]]:
    """What a create request asks for that one machine does not have: fields and reasons."""
    if not body.auto_pause_memory:
        if not body.auto_pause:
            raise BadRequest("autoPauseMemory: false is of use with autoPause alone")
        yield "autoPauseMemory", _NO_COLD_START
    if body.mcp is not None:
        yield "mcp", "this local server has no MCP gateway"
    if body.iam is not None:
        yield "iam", "this local server issues no identity tokens"
    if body.volume_mounts:
        yield "volumeMounts", "this local server has no volumes"


# Answers


def answer(status: int, value: Model | Iterable[Model], headers: Mapping[str, str] | None = None) -> Response:
    """A model, or a list of them, as an answer."""
    wire = value.to_wire() if isinstance(value, Model) else [item.to_wire() for item in value]
    return Response.json(status, wire, headers or {})


def access(sandbox: Sandbox, domain: str | None) -> SandboxAnswer:
    """A sandbox as create and connect answer it: with what a client needs to reach it."""
    return SandboxAnswer(
        template_id=sandbox.plan.template.template_id,
        alias=sandbox.plan.template.alias,
        sandbox_id=sandbox.sandbox_id,
        client_id=_CLIENT_ID,
        envd_version=ENVD_VERSION,
        envd_access_token=sandbox.envd_access_token,
        traffic_access_token=sandbox.traffic_access_token,
        domain=domain,
    )


def listed(sandbox: Sandbox) -> ListedSandbox:
    """A sandbox as lists show it."""
    return ListedSandbox(
        template_id=sandbox.plan.template.template_id,
        alias=sandbox.plan.template.alias,
        sandbox_id=sandbox.sandbox_id,
        client_id=_CLIENT_ID,
        started_at=sandbox.started_at,
        end_at=sandbox.end_at,
        cpu_count=sandbox.limits.cpu_count,
        memory_mb=sandbox.limits.memory_bytes >> 20,
        disk_size_mb=sandbox.limits.disk_bytes >> 20,
        metadata=sandbox.plan.metadata,
        state=sandbox.state.value,
        envd_version=ENVD_VERSION,
    )


def detail(sandbox: Sandbox, domain: str | None) -> SandboxDetail:
    """A sandbox with all that is known of it."""
    policy = None if sandbox.gateway is None else sandbox.gateway.policy
    return SandboxDetail(
        **dict(listed(sandbox)),
        envd_access_token=sandbox.envd_access_token,
        allow_internet_access=policy is not None and policy.internet,
        domain=domain,
        network=SandboxNetworkConfig(
            allow_public_traffic=sandbox.plan.public_traffic,
            allow_out=list(policy.allow_out) or None if policy else None,
            deny_out=list(policy.deny_out) or None if policy else None,
        ),
        lifecycle=SandboxLifecycle(
            auto_resume=sandbox.plan.auto_resume, on_timeout="pause" if sandbox.plan.auto_pause else "kill"
        ),
        **({"pause_mode": "full"} if sandbox.state is State.PAUSED else {}),
    )
