"""Calls of the control plane: a requests session on our own connections."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from sandbox_sync.config import ConnectionConfig
from sandbox_sync.deadlines import Deadline
from sandbox_sync.errors import InvalidArgumentException
from sandbox_sync.transport.answers import read_all
from sandbox_sync.transport.failures import HTTPFailure
from sandbox_sync.transport.pools import Origin
from sandbox_sync.transport.sockets import TimeLimit, time_limit

if TYPE_CHECKING:
    from sandbox_sync_rest.client import Request


# Headers that tell of the body as it was sent, which is not how we hand it on.
_OF_THE_WIRE = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class HTTPSession:
    """Sends requests of generated operations to one server.

    Args:
        base_url: Its URL.
        config: How to reach it.
        headers: Headers of every request.
        secret: What must not be seen in an error, even if the server quotes it.
        meanwhile: Is called while an answer is waited for.
    """

    def __init__(
        self,
        base_url: str,
        config: ConnectionConfig,
        headers: Mapping[str, str],
        secret: str | None,
        meanwhile: Callable[[], object] | None = None,
    ) -> None:
        self._base_url = base_url
        self._config = config
        self._secret = secret
        self._session = requests.Session()
        # Nothing of the environment: neither .netrc nor its proxies; those are for `Origin` to judge.
        self._session.trust_env = False
        self._session.headers.clear()
        self._session.headers.update({"accept": "application/json", "accept-encoding": "identity", **headers})
        adapter = _WholeAnswers(Origin(base_url, config), meanwhile)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)

    def attempt(self, request: Request, extra: Mapping[str, str], deadline: Deadline) -> requests.Response:
        """Send a request once.

        Args:
            request: The request.
            extra: More headers.
            deadline: When it has to be over.

        Raises:
            Failure: There is no answer, or its status is not one of success.
            InvalidArgumentException: The request cannot be written as HTTP.
        """
        try:
            ready = self._session.prepare_request(
                requests.Request(
                    request.method,
                    self._base_url + request.path,
                    headers={**request.headers, **extra},
                    params=request.params,
                    json=request.json,
                )
            )
        except (requests.RequestException, ValueError):
            # The error's own words quote the header, which may be a secret.
            raise InvalidArgumentException(
                f"{request.operation}: a header or parameter holds characters that HTTP does not allow"
            ) from None
        limit: Any = time_limit(deadline)  # which reaches our own adapter as it is
        response = self._session.send(ready, timeout=limit, allow_redirects=False, proxies={}, stream=False)
        if 200 <= response.status_code < 300:
            return response
        said = self._config.without_secrets(response.content.decode("utf-8", "replace"), self._secret)
        raise HTTPFailure.from_answer(response.status_code, response.headers, said.encode())


class _WholeAnswers(HTTPAdapter):
    """Lets a session use our connections.

    Its answers have been read, so that nothing fails once they are out; and they bring no cookies in.
    """

    def __init__(self, origin: Origin, meanwhile: Callable[[], object] | None) -> None:
        self._origin = origin
        self._meanwhile = meanwhile
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """It has no pools of its own."""

    def close(self) -> None:
        """The connections stay open for other sessions."""

    def send(  # type: ignore[override]
        self, request: requests.PreparedRequest, timeout: TimeLimit | None = None, **ignored: Any
    ) -> requests.Response:
        raw = self._origin.request(
            request.method or "GET",
            request.path_url.removeprefix(self._origin.prefix),
            headers=dict(request.headers),
            body=request.body.encode() if isinstance(request.body, str) else request.body,
            limit=timeout,
            meanwhile=self._meanwhile,
        )
        content = read_all(raw, timeout)
        headers = {name: value for name, value in raw.headers.items() if name.lower() not in _OF_THE_WIRE}
        whole = HTTPResponse(BytesIO(content), headers, raw.status, preload_content=False, reason=raw.reason)
        return self.build_response(request, whole)
