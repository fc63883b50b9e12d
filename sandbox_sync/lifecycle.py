"""The life of sandboxes as the control plane keeps it: operations on a sandbox's id, in the SDK's terms."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar
from urllib.parse import quote, urlencode
from uuid import uuid4

from sandbox_sync._arguments import contract
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.errors import (
    InvalidArgumentException,
    SandboxException,
    SandboxNotFoundException,
    TemplateException,
)
from sandbox_sync.models import SandboxInfo, SandboxQuery, SandboxState
from sandbox_sync.transport.rest import ControlPlane

if TYPE_CHECKING:
    from sandbox_sync_rest.models.listed_sandbox import ListedSandbox
    from sandbox_sync_rest.models.sandbox import Sandbox
    from sandbox_sync_rest.models.sandbox_detail import SandboxDetail

logger = logging.getLogger(__name__)

T = TypeVar("T")

Order = Literal["asc", "desc"]

_OLDEST_ENVD = (0, 1, 0)
_CLEAN_UP_SECONDS = 5.0


class Access(NamedTuple):
    """What it takes to reach into a sandbox.

    Attributes:
        sandbox_id: Its id.
        domain: The domain it is reached under, if the service said one.
        token: What the agent inside wants to see, if anything.
    """

    sandbox_id: str
    domain: str | None = None
    token: str | None = None

    def __repr__(self) -> str:
        return f"Access(sandbox_id={self.sandbox_id!r})"


def create(
    config: ConnectionConfig,
    *,
    template: str,
    timeout: int | None,
    metadata: Mapping[str, str] | None,
    envs: Mapping[str, str] | None,
    idempotency_key: str | None,
) -> Access:
    """Make a sandbox. Repeating the request makes no second one, and one that is of no use is not left."""
    from sandbox_sync_rest.api.sandboxes import post_v2_sandboxes
    from sandbox_sync_rest.models.new_sandbox_v2 import NewSandboxV2

    key = uuid4().hex if idempotency_key is None else idempotency_key
    if not re.fullmatch(r"[a-z0-9-]{1,255}", key):
        raise InvalidArgumentException("idempotency_key has to be 1 to 255 characters of a-z, 0-9 and '-'")
    if config.debug:
        return Access("debug_sandbox_id")
    client = ControlPlane(config).within(idempotency_key=key)
    with contract():
        body = NewSandboxV2(
            templateID=template,
            metadata=dict(metadata or {}),
            envVars=dict(envs or {}),
            **_given(timeout=timeout),
        )
        created = _complete(post_v2_sandboxes.call(client, body=body), "created sandbox")
    try:
        _require_current(created, template)
        return _access(created)
    except BaseException:
        discard(config, created.sandbox_id)
        raise


def connect(
    config: ConnectionConfig, sandbox_id: str, *, timeout: int | None, request_timeout: float | None = None
) -> Access:
    """Resume a sandbox if it is paused, and let it live for at least `timeout` seconds."""
    from sandbox_sync_rest.api.sandboxes import post_v2_sandboxes_sandbox_id_connect
    from sandbox_sync_rest.models.connect_sandbox_v2 import ConnectSandboxV2

    if config.debug:
        return Access(sandbox_id)
    client = ControlPlane(config).within(request_timeout, sandbox_id=sandbox_id, repeatable=True)
    with contract():
        body = ConnectSandboxV2(**_given(timeout=timeout))
        answer = post_v2_sandboxes_sandbox_id_connect.call(client, sandbox_id, body=body)
        return _access(_complete(answer, "connected sandbox"))


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
        kill(config, sandbox_id, _CLEAN_UP_SECONDS)
    except SandboxException as error:
        logger.warning("sandbox %s was not killed: %s", sandbox_id, error)


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


def get_info(config: ConnectionConfig, sandbox_id: str, request_timeout: float | None = None) -> SandboxInfo:
    """What the control plane knows of a sandbox."""
    return _info(_detail(config, sandbox_id, request_timeout))


def get_access(config: ConnectionConfig, sandbox_id: str) -> Access:
    """What it takes to reach into a sandbox, of which nothing changes by asking."""
    return Access(sandbox_id) if config.debug else _access(_detail(config, sandbox_id))


def pages(
    config: ConnectionConfig, query: SandboxQuery, limit: int | None, order: Order | None
) -> Callable[[str | None], tuple[list[SandboxInfo], str | None]]:
    """What fetches the page of a token, out of the sandboxes that match, and tells the token of the next."""
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

    def fetch(token: str | None) -> tuple[list[SandboxInfo], str | None]:
        with contract():
            request = get_v2_sandboxes.build(**filters, next_token=token)
            response = ControlPlane(config).within().send(request)
            found = _complete(get_v2_sandboxes.parse(response), "list of sandboxes")
        return [_info(sandbox) for sandbox in found], response.headers.get("X-Next-Token") or None

    return fetch


def _detail(config: ConnectionConfig, sandbox_id: str, request_timeout: float | None = None) -> SandboxDetail:
    from sandbox_sync_rest.api.sandboxes import get_sandboxes_sandbox_id

    client = ControlPlane(config).within(request_timeout, sandbox_id=sandbox_id)
    with contract():
        return _complete(get_sandboxes_sandbox_id.call(client, sandbox_id), "sandbox")


def _access(answer: Sandbox | SandboxDetail) -> Access:
    return Access(answer.sandbox_id, answer.domain, answer.envd_access_token)


def _require_current(created: Sandbox, template: str) -> None:
    version = tuple(int(number) for number in re.findall(r"\d+", created.envd_version or "")[:3])
    if version and version < _OLDEST_ENVD:
        raise TemplateException(
            f"Template {template!r} is too old for this SDK: its agent is of version {created.envd_version}. "
            "Build the template anew",
            sandbox_id=created.sandbox_id,
        )


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


def _given(**options: Any) -> dict[str, Any]:
    """Those options that were given: the service has the defaults of the others."""
    return {name: value for name, value in options.items() if value is not None}


def _complete(answer: T | None, what: str) -> T:
    if answer is None:
        raise SandboxException(f"The service answered with success but without the {what}")
    return answer
