"""The class forms of `Sandbox`'s methods, such as `Sandbox.kill(sandbox_id)`: they need but an id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from sandbox_sync import lifecycle
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.models import ConnectionOptions, SandboxInfo

if TYPE_CHECKING:
    from typing_extensions import Unpack


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
    """
    config = configure(api_key, domain, debug, request_timeout, headers, proxy, options)
    return lifecycle.get_info(config, sandbox_id)
