"""What the control plane tells of sandboxes: one, many, what they use, what was saved of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import quote, urlencode

from sandbox_sync._arguments import contract
from sandbox_sync.access import Access, complete
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.errors import InvalidArgumentException, SandboxException
from sandbox_sync.models.sandboxes import (
    SandboxInfo,
    SandboxMetrics,
    SandboxQuery,
    SandboxState,
    SnapshotInfo,
)
from sandbox_sync.transport.rest import ControlPlane

if TYPE_CHECKING:
    import requests
    from sandbox_sync_rest.client import Client, Request
    from sandbox_sync_rest.models.listed_sandbox import ListedSandbox
    from sandbox_sync_rest.models.sandbox_detail import SandboxDetail
    from sandbox_sync_rest.models.sandbox_metric import SandboxMetric
    from sandbox_sync_rest.models.snapshot_info import SnapshotInfo as Snapshot

    from sandbox_sync.listing import Page

T = TypeVar("T")
M = TypeVar("M")

Order = Literal["asc", "desc"]


def get_info(config: ConnectionConfig, sandbox_id: str, request_timeout: float | None = None) -> SandboxInfo:
    """What the control plane knows of a sandbox."""
    client = ControlPlane(config).within(request_timeout, sandbox_id=sandbox_id)
    return _info(detail(client, sandbox_id))


def get_access(config: ConnectionConfig, sandbox_id: str) -> Access:
    """What it takes to reach into a sandbox, of which nothing changes by asking."""
    if config.debug:
        return Access(sandbox_id)
    return Access.told_by(detail(ControlPlane(config).within(sandbox_id=sandbox_id), sandbox_id))


def detail(client: Client, sandbox_id: str) -> SandboxDetail:
    """All that the control plane tells of a sandbox."""
    from sandbox_sync_rest.api.sandboxes import get_sandboxes_sandbox_id

    with contract():
        return complete(get_sandboxes_sandbox_id.call(client, sandbox_id), "sandbox")


def is_paused(client: Client, sandbox_id: str) -> bool:
    """Whether a sandbox waits to be resumed."""
    return _state(detail(client, sandbox_id).state) == SandboxState.PAUSED


def get_metrics(
    config: ConnectionConfig,
    sandbox_id: str,
    start: datetime | None,
    end: datetime | None,
    request_timeout: float | None = None,
) -> list[SandboxMetrics]:
    """What a sandbox has used."""
    from sandbox_sync_rest.api.sandboxes import get_sandboxes_sandbox_id_metrics

    since, until = _unix("start", start, math.floor), _unix("end", end, math.ceil)
    if config.debug:
        return []
    client = ControlPlane(config).within(request_timeout, sandbox_id=sandbox_id)
    with contract():
        found = get_sandboxes_sandbox_id_metrics.call(client, sandbox_id, start=since, end=until)
        return [_metrics(metric) for metric in complete(found, "metrics")]


def sandboxes(
    config: ConnectionConfig, query: SandboxQuery, limit: int | None, order: Order | None
) -> Callable[[str | None], Page[SandboxInfo]]:
    """What fetches the page of a token, out of the sandboxes that match."""
    from sandbox_sync_rest.api.sandboxes import get_v2_sandboxes

    with contract():
        filters: dict[str, Any] = {
            "metadata": _metadata_filter(query.metadata or {}),
            "state": [SandboxState(state).value for state in query.state or (SandboxState.RUNNING,)],
            "started_after": query.started_after,
            "template": query.template,
            "limit": limit,
            "order": order,
        }

    return _fetching(
        config,
        lambda token: get_v2_sandboxes.build(**filters, next_token=token),
        lambda response: [_info(one) for one in complete(get_v2_sandboxes.parse(response), "sandboxes")],
    )


def snapshots(
    config: ConnectionConfig, sandbox_id: str | None, name: str | None, limit: int | None
) -> Callable[[str | None], Page[SnapshotInfo]]:
    """What fetches the page of a token, out of the snapshots of a sandbox or of all."""
    from sandbox_sync_rest.api.snapshots import get_snapshots

    return _fetching(
        config,
        lambda token: get_snapshots.build(sandbox_id=sandbox_id, name=name, limit=limit, next_token=token),
        lambda response: [snapshot_info(one) for one in complete(get_snapshots.parse(response), "snapshots")],
    )


def _fetching(
    config: ConnectionConfig,
    build: Callable[[str | None], Request],
    parse: Callable[[requests.Response], list[M]],
) -> Callable[[str | None], Page[M]]:
    """What fetches the page of a token, and tells the token of the next."""

    def fetch(token: str | None) -> Page[M]:
        with contract():
            response = ControlPlane(config).within().send(build(token))
            return parse(response), response.headers.get("X-Next-Token") or None

    return fetch


def snapshot_info(snapshot: Snapshot) -> SnapshotInfo:
    """The same under the documented names."""
    return SnapshotInfo(snapshot.snapshot_id, snapshot.names)


def _info(sandbox: SandboxDetail | ListedSandbox) -> SandboxInfo:
    """The same under the documented names, and without tokens."""
    said = sandbox.model_dump(exclude_none=True)
    said |= {
        "name": sandbox.alias,
        "sandbox_domain": said.get("domain"),
        "state": _state(sandbox.state),
    }
    known: dict[str, Any] = {field.name: said.get(field.name) for field in fields(SandboxInfo)}
    return SandboxInfo(**known)


def _metrics(metric: SandboxMetric) -> SandboxMetrics:
    said = metric.model_dump(exclude_none=True)
    if "timestamp" not in said and "timestamp_unix" in said:
        said["timestamp"] = datetime.fromtimestamp(said["timestamp_unix"], timezone.utc)
    missing = [field.name for field in fields(SandboxMetrics) if field.name not in said]
    if missing:
        raise SandboxException(
            f"The service's answer cannot be understood: metrics without {', '.join(missing)}"
        )
    return SandboxMetrics(**{field.name: said[field.name] for field in fields(SandboxMetrics)})


def _unix(name: str, at: datetime | None, whole: Callable[[float], int]) -> int | None:
    """A time as whole seconds since 1970."""
    if at is None:
        return None
    if not isinstance(at, datetime) or at.utcoffset() is None:
        raise InvalidArgumentException(f"{name} has to be a datetime with a time zone; got {at!r}")
    return whole(at.timestamp())


def _state(said: str | None) -> SandboxState | str | None:
    try:
        return SandboxState(said)
    except ValueError:
        return said


def _metadata_filter(metadata: Mapping[str, str]) -> str | None:
    """A query string whose keys and values are encoded once more than usual, as the service reads it."""
    if not all(isinstance(part, str) for pair in metadata.items() for part in pair):
        raise InvalidArgumentException("metadata has to map str to str")
    return urlencode({quote(key, safe=""): quote(value, safe="") for key, value in metadata.items()}) or None
