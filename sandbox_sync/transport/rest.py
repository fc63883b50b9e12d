"""The control plane: sends the requests of the generated operations, and judges the answers."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import TYPE_CHECKING

from sandbox_sync import retries
from sandbox_sync._version import __version__
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.deadlines import Deadline
from sandbox_sync.errors import NotFoundException, SandboxNotFoundException
from sandbox_sync.transport.failures import Failure, require_json
from sandbox_sync.transport.log import CallLog
from sandbox_sync.transport.mapping import Call, control_plane_error
from sandbox_sync.transport.session import HTTPSession

if TYPE_CHECKING:
    import requests
    from sandbox_sync_rest.client import Request

IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})
"""HTTP methods that may be sent twice."""

_IDENTITY = {
    "lang": "python",
    "lang_version": platform.python_version(),
    "package_version": __version__,
    "publisher": "sandbox-sync",
    "sdk_runtime": "python",
    "system": platform.system(),
}


class ControlPlane:
    """The service's own API, where sandboxes are made and ended.

    Args:
        config: Where it is and who calls.
        meanwhile: Is called while an answer is waited for.

    Raises:
        AuthenticationException: There is no API key.
    """

    def __init__(self, config: ConnectionConfig, meanwhile: Callable[[], object] | None = None) -> None:
        self._config = config
        key = config.require_api_key()
        headers = {**_IDENTITY, **({"X-API-Key": key} if key else {}), **config.headers}
        self._session = HTTPSession(config.api_url, config, headers, key, meanwhile)

    def within(
        self,
        request_timeout: float | None = None,
        *,
        sandbox_id: str | None = None,
        idempotency_key: str | None = None,
        repeatable: bool = False,
    ) -> TimedClient:
        """A client for the requests of one call of the SDK. Their time begins now and is for all of them.

        Args:
            request_timeout: Total seconds, retries included; 0 for no limit, None for the configured one.
            sandbox_id: The sandbox that the call is for: what "not found" is about.
            idempotency_key: Sent with every attempt; by it the service knows a repetition.
            repeatable: Whether a POST has the same effect when it is done twice.

        Raises:
            InvalidArgumentException: `request_timeout` is no number of seconds.
        """
        extra = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        call = Call(
            sandbox_id=sandbox_id,
            limit=self._config.request_timeout if request_timeout is None else request_timeout,
            not_found=NotFoundException if sandbox_id is None else SandboxNotFoundException,
        )
        deadline = self._config.deadline(request_timeout)
        call = call.within(deadline)
        return TimedClient(self._session, self._config, call, deadline, extra, repeatable or bool(extra))


class TimedClient:
    """Sends the requests of one call of the SDK. Made by `ControlPlane.within`."""

    def __init__(
        self,
        session: HTTPSession,
        config: ConnectionConfig,
        call: Call,
        deadline: Deadline,
        extra: dict[str, str],
        repeatable: bool,
    ) -> None:
        self._session = session
        self._config = config
        self._call = call
        self._deadline = deadline
        self._extra = extra
        self._repeatable = repeatable

    def send(self, request: Request) -> requests.Response:
        """Send a request, and again where that does no harm and may help.

        Returns:
            The answer, of a status of success.

        Raises:
            SandboxException: It failed.
        """
        call = self._call.at(request.method, request.path)
        try:
            response = retries.call(
                lambda: self._session.attempt(request, self._extra, self._deadline),
                repeatable=self._repeatable or request.method in IDEMPOTENT,
                deadline=self._deadline,
                most=self._config.retries,
                log=CallLog(self._config.log, call.method, call.path, call.sandbox_id),
            )
            require_json(response.status_code, response.headers, response.content)
        except Failure as failure:
            raise control_plane_error(failure, call) from None
        return response
