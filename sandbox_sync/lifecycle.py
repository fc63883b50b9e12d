"""The life of sandboxes as the control plane keeps it: what changes a sandbox, in the SDK's terms."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from sandbox_sync import options
from sandbox_sync._arguments import contract
from sandbox_sync._later import later, load
from sandbox_sync.access import Access, agent_version, complete
from sandbox_sync.ambient import CLEAN_UP_SECONDS, cleaning_up
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.errors import (
    ConflictException,
    GuestUnresponsiveException,
    InvalidArgumentException,
    SandboxException,
    SandboxNotFoundException,
    TemplateException,
)
from sandbox_sync.options import SandboxLifecycle, SandboxNetworkOpts, SandboxNetworkUpdate, SavedState
from sandbox_sync.transport.failures import HTTPFailure
from sandbox_sync.transport.mapping import Call, control_plane_error
from sandbox_sync.transport.rest import ControlPlane

if TYPE_CHECKING:
    from sandbox_sync_rest.models.sandbox import Sandbox
    from sandbox_sync_rest.models.sandbox_fork_result import SandboxForkResult

    from sandbox_sync import queries
    from sandbox_sync.models.sandboxes import SnapshotInfo
else:
    queries = later("sandbox_sync.queries")

OnResume = Literal["restore", "reboot"]

MOST_FORKS = 20

_OLDEST_ENVD = (0, 1, 0)


def create(
    config: ConnectionConfig,
    *,
    template: str,
    timeout: int | None,
    metadata: Mapping[str, str] | None,
    envs: Mapping[str, str] | None,
    allow_internet_access: bool | None = None,
    network: SandboxNetworkOpts | None = None,
    lifecycle: SandboxLifecycle | None = None,
    idempotency_key: str | None = None,
) -> Access:
    """Make a sandbox. Repeating the request makes no second one, and one that is of no use is not left."""
    from sandbox_sync_rest.api.sandboxes import post_v2_sandboxes
    from sandbox_sync_rest.models.new_sandbox_v2 import NewSandboxV2

    key = uuid4().hex if idempotency_key is None else idempotency_key
    if not re.fullmatch(r"[a-z0-9-]{1,255}", key):
        raise InvalidArgumentException("idempotency_key has to be 1 to 255 characters of a-z, 0-9 and '-'")
    end_of_life = options.end_of_life(lifecycle)
    if config.debug:
        return Access("debug_sandbox_id")
    client = ControlPlane(config, _load_what_follows).within(idempotency_key=key)
    with contract():
        body = NewSandboxV2(
            templateID=template,
            metadata=dict(metadata or {}),
            envVars=dict(envs or {}),
            **_given(
                timeout=timeout,
                allow_internet_access=allow_internet_access,
                network=None if network is None else options.network_config(network),
            ),
            **end_of_life,
        )
        created = complete(post_v2_sandboxes.call(client, body=body), "created sandbox")
    try:
        _require_current(created, template)
        return Access.told_by(created)
    except BaseException:
        discard(config, created.sandbox_id)
        raise


def connect(
    config: ConnectionConfig,
    sandbox_id: str,
    *,
    timeout: int | None,
    on_resume: OnResume = "restore",
    request_timeout: float | None = None,
) -> Access:
    """Resume a sandbox if it is paused, and let it live for at least `timeout` seconds."""
    from sandbox_sync_rest.api.sandboxes import post_v2_sandboxes_sandbox_id_connect
    from sandbox_sync_rest.models.connect_sandbox_v2 import ConnectSandboxV2

    if on_resume not in ("restore", "reboot"):
        raise InvalidArgumentException(f"on_resume has to be 'restore' or 'reboot'; got {on_resume!r}")
    if config.debug:
        return Access(sandbox_id)
    client = ControlPlane(config, _load_what_follows).within(
        request_timeout, sandbox_id=sandbox_id, repeatable=True
    )
    with contract():
        body = ConnectSandboxV2(**_given(timeout=timeout, memory=False if on_resume == "reboot" else None))
        answer = post_v2_sandboxes_sandbox_id_connect.call(client, sandbox_id, body=body)
        return Access.told_by(complete(answer, "connected sandbox"))


def kill(config: ConnectionConfig, sandbox_id: str, request_timeout: float | None = None) -> bool:
    """End a sandbox; False if there is none of that id."""
    from sandbox_sync_rest.api.sandboxes import delete_sandboxes_sandbox_id

    if config.debug:
        return True
    client = ControlPlane(config).within(request_timeout, sandbox_id=sandbox_id)
    try:
        with contract():
            delete_sandboxes_sandbox_id.call(client, sandbox_id)
    except SandboxNotFoundException as error:
        return error.maybe_executed  # an earlier attempt, whose answer was lost, may have ended it
    return True


def discard(config: ConnectionConfig, sandbox_id: str) -> None:
    """End a sandbox on the way out of an error, which nothing here replaces or holds up for long."""
    try:
        with cleaning_up():
            kill(config, sandbox_id, CLEAN_UP_SECONDS)
    except SandboxException as error:
        config.log.warning("sandbox %s was not killed: %s", sandbox_id, error)


def set_timeout(
    config: ConnectionConfig, sandbox_id: str, timeout: int, request_timeout: float | None = None
) -> None:
    """Let a sandbox end so many seconds from now."""
    from sandbox_sync_rest.api.sandboxes import post_sandboxes_sandbox_id_timeout
    from sandbox_sync_rest.models.sandbox_timeout_request import SandboxTimeoutRequest

    if config.debug:
        return
    client = ControlPlane(config).within(request_timeout, sandbox_id=sandbox_id, repeatable=True)
    with contract():
        body = SandboxTimeoutRequest(timeout=timeout)
        post_sandboxes_sandbox_id_timeout.call(client, sandbox_id, body=body)


def pause(
    config: ConnectionConfig,
    sandbox_id: str,
    *,
    mode: SavedState | None,
    strict: bool,
    request_timeout: float | None = None,
) -> bool:
    """Save a sandbox and stop it; False if it was paused already."""
    from sandbox_sync_rest.api.sandboxes import post_sandboxes_sandbox_id_pause
    from sandbox_sync_rest.models.sandbox_pause_request import SandboxPauseRequest

    memory = None if mode is None else options.keeps_memory(mode)
    client = ControlPlane(config).within(request_timeout, sandbox_id=sandbox_id, repeatable=True)
    try:
        with contract():
            body = SandboxPauseRequest(**_given(memory=memory, require_healthy_guest=strict or None))
            post_sandboxes_sandbox_id_pause.call(client, sandbox_id, body=body)
    except GuestUnresponsiveException:
        raise
    except ConflictException as conflict:
        # It has many reasons; only one of them is that there is nothing to do.
        if not queries.is_paused(client, sandbox_id):
            raise
        return conflict.maybe_executed  # an earlier attempt, whose answer was lost, may have paused it
    return True


def update_network(
    config: ConnectionConfig,
    sandbox_id: str,
    network: SandboxNetworkUpdate,
    request_timeout: float | None = None,
) -> None:
    """Replace all rules of what may go out of a sandbox."""
    from sandbox_sync_rest.api.sandboxes import put_sandboxes_sandbox_id_network

    client = ControlPlane(config).within(request_timeout, sandbox_id=sandbox_id)
    with contract():
        body = options.network_update(network)
        put_sandboxes_sandbox_id_network.call(client, sandbox_id, body=body)


def fork(
    config: ConnectionConfig,
    sandbox_id: str,
    *,
    timeout: int | None,
    count: int | None,
    request_timeout: float | None = None,
) -> list[Access | SandboxException]:
    """Make copies of a running sandbox; what became of each."""
    from sandbox_sync_rest.api.sandboxes import post_sandboxes_sandbox_id_fork
    from sandbox_sync_rest.models.sandbox_fork_request import SandboxForkRequest

    if count is not None and not (isinstance(count, int) and 1 <= count <= MOST_FORKS):
        raise InvalidArgumentException(f"count has to be 1 to {MOST_FORKS}; got {count!r}")
    client = ControlPlane(config).within(request_timeout, sandbox_id=sandbox_id)
    with contract():
        body = SandboxForkRequest(**_given(timeout=timeout, count=count))
        forks = complete(post_sandboxes_sandbox_id_fork.call(client, sandbox_id, body=body), "forks")
    return [_forked(one, sandbox_id) for one in forks]


def create_snapshot(
    config: ConnectionConfig,
    sandbox_id: str,
    name: str | None,
    *,
    mode: SavedState | None,
    request_timeout: float | None = None,
) -> SnapshotInfo:
    """Save a sandbox that runs on."""
    from sandbox_sync_rest.api.sandboxes import post_sandboxes_sandbox_id_snapshots
    from sandbox_sync_rest.models.sandbox_snapshot_request import SandboxSnapshotRequest

    memory = None if mode is None else options.keeps_memory(mode)
    client = ControlPlane(config).within(request_timeout, sandbox_id=sandbox_id)
    with contract():
        body = SandboxSnapshotRequest(**_given(name=name, memory=memory))
        taken = complete(post_sandboxes_sandbox_id_snapshots.call(client, sandbox_id, body=body), "snapshot")
    return queries.snapshot_info(taken)


def _forked(result: SandboxForkResult, source: str) -> Access | SandboxException:
    if result.sandbox is not None:
        return Access.told_by(result.sandbox)
    said = {} if result.error is None else result.error.to_wire()
    failure = HTTPFailure.from_answer(said.get("code") or 500, {}, json.dumps(said).encode())
    return control_plane_error(
        failure, Call("POST", f"/sandboxes/{source}/fork", source, not_found=SandboxNotFoundException)
    )


def _load_what_follows() -> None:
    """Load what reaches into a sandbox: in a process that has just begun, the service needs as long."""
    for module in ("sandbox_sync_rest.models.sandbox", "sandbox_sync_rpc.process_pb2", "sandbox_sync.inside"):
        load(module)


def _require_current(created: Sandbox, template: str) -> None:
    version = agent_version(created)
    if version and version < _OLDEST_ENVD:
        raise TemplateException(
            f"Template {template!r} is too old for this SDK: its agent is of version {created.envd_version}. "
            "Build the template anew",
            sandbox_id=created.sandbox_id,
        )


def _given(**options: Any) -> dict[str, Any]:
    """Those options that were given: the service has the defaults of the others."""
    return {name: value for name, value in options.items() if value is not None}
