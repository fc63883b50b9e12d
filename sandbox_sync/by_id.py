"""The class forms of `Sandbox`'s methods, such as `Sandbox.kill(sandbox_id)`: they need but an id."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from sandbox_sync._later import later
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.listing import Listing
from sandbox_sync.models.connection import ConnectionOptions
from sandbox_sync.options import ApiParams, SandboxNetworkUpdate, SavedState

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from sandbox_sync import lifecycle, queries
    from sandbox_sync.models.sandboxes import SandboxInfo, SandboxMetrics, SnapshotInfo
else:
    lifecycle = later("sandbox_sync.lifecycle")
    queries = later("sandbox_sync.queries")


def configure(
    api_key: str | None,
    domain: str | None,
    debug: bool | None,
    request_timeout: float | None,
    headers: Mapping[str, str] | None,
    proxy: str | None,
    options: ConnectionOptions,
) -> ConnectionConfig:
    """The configuration for the documented connection options and the others."""
    return ConnectionConfig.resolve(
        api_key=api_key,
        domain=domain,
        debug=debug,
        request_timeout=request_timeout,
        headers=headers,
        proxy=proxy,
        **options,
    )


def kill(
    sandbox_id: str,
    api_key: str | None = None,
    domain: str | None = None,
    debug: bool | None = None,
    request_timeout: float | None = None,
    proxy: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    **options: Unpack[ConnectionOptions],
) -> bool:
    """Kill a sandbox.

    Args:
        sandbox_id: Id of the sandbox.
        api_key: As for `create`.
        domain: As for `create`.
        debug: As for `create`.
        request_timeout: Timeout for the request in seconds.
        proxy: As for `create`.
        headers: As for `create`.
        **options: See `ConnectionOptions`.

    Returns:
        True if the sandbox was killed, False if there is none of that id.

    Raises:
        SandboxException: Whether it was killed is not known.

    Specified in: Sandbox, kill
    """
    config = configure(api_key, domain, debug, request_timeout, headers, proxy, options)
    return lifecycle.kill(config, sandbox_id)


def set_timeout(
    sandbox_id: str,
    timeout: int,
    api_key: str | None = None,
    domain: str | None = None,
    debug: bool | None = None,
    request_timeout: float | None = None,
    proxy: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    **options: Unpack[ConnectionOptions],
) -> None:
    """Set the time that a sandbox has left to live, which may be longer or shorter than before.

    Args:
        sandbox_id: Id of the sandbox.
        timeout: Seconds from now.
        api_key: As for `create`.
        domain: As for `create`.
        debug: As for `create`.
        request_timeout: Timeout for the request in seconds.
        proxy: As for `create`.
        headers: As for `create`.
        **options: See `ConnectionOptions`.

    Raises:
        SandboxNotFoundException: There is no sandbox of that id.
        SandboxException: The request failed.

    Specified in: Sandbox, set_timeout
    """
    config = configure(api_key, domain, debug, request_timeout, headers, proxy, options)
    lifecycle.set_timeout(config, sandbox_id, timeout)


def get_info(
    sandbox_id: str,
    api_key: str | None = None,
    domain: str | None = None,
    debug: bool | None = None,
    request_timeout: float | None = None,
    headers: Mapping[str, str] | None = None,
    proxy: str | None = None,
    **options: Unpack[ConnectionOptions],
) -> SandboxInfo:
    """What the service knows of a sandbox.

    Args:
        sandbox_id: Id of the sandbox.
        api_key: As for `create`.
        domain: As for `create`.
        debug: As for `create`.
        request_timeout: Timeout for the request in seconds.
        headers: As for `create`.
        proxy: As for `create`.
        **options: See `ConnectionOptions`.

    Raises:
        SandboxNotFoundException: There is no sandbox of that id.
        SandboxException: The request failed.

    Specified in: SandboxApi, get_info
    """
    config = configure(api_key, domain, debug, request_timeout, headers, proxy, options)
    return queries.get_info(config, sandbox_id)


def pause(
    sandbox_id: str,
    *,
    mode: SavedState | None = None,
    strict: bool = False,
    **options: Unpack[ApiParams],
) -> bool:
    """Save a sandbox and stop it. `Sandbox.connect(sandbox_id)` lets it go on.

    Args:
        sandbox_id: Id of the sandbox.
        mode: What is saved: "full", its memory and its files, or "filesystem", its files alone; the service's
            default, "full", when left out.
        strict: Whether to refuse when the agent inside the sandbox does not answer.
        **options: See `ApiParams`.

    Returns:
        True if it is paused now, False if it was paused already.

    Raises:
        SandboxNotFoundException: There is no sandbox of that id.
        GuestUnresponsiveException: The agent inside the sandbox does not answer.
        ConflictException: The sandbox is in a state in which it cannot be paused.
        SandboxException: Whether it was paused is not known.
    """
    return lifecycle.pause(ConnectionConfig.resolve(**options), sandbox_id, mode=mode, strict=strict)


def get_metrics(
    sandbox_id: str,
    start: datetime | None = None,
    end: datetime | None = None,
    **options: Unpack[ApiParams],
) -> list[SandboxMetrics]:
    """What a sandbox has used of its CPUs, memory and disk.

    Args:
        sandbox_id: Id of the sandbox.
        start: Time of the first measurement wanted; the start of the sandbox when left out.
        end: Time of the last one; now when left out.
        **options: See `ApiParams`.

    Returns:
        The measurements, oldest first. There may be none in the first seconds, or while it is paused.

    Raises:
        SandboxNotFoundException: There is no sandbox of that id.
        InvalidArgumentException: A time is without a time zone.
        SandboxException: The request failed.
    """
    return queries.get_metrics(ConnectionConfig.resolve(**options), sandbox_id, start, end)


def update_network(sandbox_id: str, network: SandboxNetworkUpdate, **options: Unpack[ApiParams]) -> None:
    """Replace all rules of what may go out of a sandbox.

    Args:
        sandbox_id: Id of the sandbox.
        network: The new rules. What it leaves out is cleared, not kept.
        **options: See `ApiParams`.

    Raises:
        SandboxNotFoundException: There is no sandbox of that id.
        ConflictException: It does not run.
        InvalidArgumentException: A rule was refused.
        SandboxException: The request failed, or the service cannot do it.
    """
    lifecycle.update_network(ConnectionConfig.resolve(**options), sandbox_id, network)


def create_snapshot(
    sandbox_id: str, name: str | None = None, *, mode: SavedState | None = None, **options: Unpack[ApiParams]
) -> SnapshotInfo:
    """Save a sandbox that runs on. `Sandbox.create(snapshot_id)` makes sandboxes that start from there.

    Args:
        sandbox_id: Id of the sandbox.
        name: Name for the snapshot; the latest of a name is the one that the name stands for.
        mode: As for `pause`.
        **options: See `ApiParams`.

    Returns:
        The snapshot.

    Raises:
        SandboxNotFoundException: There is no sandbox of that id.
        SandboxException: The request failed, or the service cannot do it.
    """
    config = ConnectionConfig.resolve(**options)
    return lifecycle.create_snapshot(config, sandbox_id, name, mode=mode)


def list_snapshots(
    sandbox_id: str | None = None,
    *,
    limit: int | None = None,
    next_token: str | None = None,
    name: str | None = None,
    **options: Unpack[ApiParams],
) -> Listing[SnapshotInfo]:
    """The snapshots of the account.

    Args:
        sandbox_id: List those of this sandbox only.
        limit: Number of snapshots to a page, 1 to 100.
        next_token: Where to start: the `next_token` of an earlier listing.
        name: List those of this name only.
        **options: See `ApiParams`.

    Returns:
        A sequence whose pages are fetched when they are needed.

    Raises:
        SandboxException: From the sequence: a page could not be fetched.
    """
    config = ConnectionConfig.resolve(**options)
    return Listing(queries.snapshots(config, sandbox_id, name, limit), next_token)
