"""What can be asked of the service beyond the basics, as typed dictionaries, and how it goes on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict

from sandbox_sync.errors import InvalidArgumentException
from sandbox_sync.models.connection import ConnectionOptions

if TYPE_CHECKING:
    from sandbox_sync_rest.models.sandbox_network_config import SandboxNetworkConfig
    from sandbox_sync_rest.models.sandbox_network_update_config import SandboxNetworkUpdateConfig
    from typing_extensions import Required

SavedState: TypeAlias = Literal["full", "filesystem"]
"""What is saved of a sandbox: memory and files, so that its processes go on later, or its files alone."""


class ApiParams(ConnectionOptions, total=False):
    """How to reach the service, and who calls.

    Attributes:
        api_key: API key; E2B_API_KEY when left out.
        domain: Domain of the service; E2B_DOMAIN, or "e2b.app". "local" is a server of this machine's own.
        debug: Use services on localhost, as E2B's developers run them.
        request_timeout: Timeout for the request in seconds; 60 when left out, 0 for no limit.
        headers: Headers to add to requests to the control plane.
        proxy: URL of the proxy for all requests.
    """

    api_key: str | None
    domain: str | None
    debug: bool | None
    request_timeout: float | None
    headers: Mapping[str, str] | None
    proxy: str | None


class SandboxOnTimeout(TypedDict, total=False):
    """The end of a sandbox's lifetime, where it takes more than a word.

    Attributes:
        action: What happens.
        mode: What is saved when it is paused; "full" when left out.
    """

    action: Required[Literal["kill", "pause"]]
    mode: SavedState


class SandboxLifecycle(TypedDict, total=False):
    """What happens when a sandbox's lifetime ends, and afterwards.

    Attributes:
        on_timeout: What happens at its end: "kill", "pause", or `SandboxOnTimeout`.
        auto_resume: Whether a request to the paused sandbox resumes it; that needs its memory.
    """

    on_timeout: Required[Literal["kill", "pause"] | SandboxOnTimeout]
    auto_resume: bool


class SandboxNetworkTransform(TypedDict, total=False):
    """Changes to a request that goes out.

    Attributes:
        headers: Headers to set, by name.
    """

    headers: dict[str, str]


class SandboxNetworkRule(TypedDict, total=False):
    """What to do with a request that goes out.

    Attributes:
        transform: Changes to it.
    """

    transform: SandboxNetworkTransform


class SandboxEgressProxyTLSOpts(TypedDict, total=False):
    """TLS to the proxy of a sandbox.

    Attributes:
        server_name: Name that the proxy's certificate has to bear; the host of its address when left out.
        ca_cert: Certificates to trust in place of the public ones, in PEM.
    """

    server_name: str
    ca_cert: str


class SandboxEgressProxyOpts(TypedDict, total=False):
    """Proxy for everything that goes out of a sandbox.

    Attributes:
        address: Its host and port.
        username: User to log in as.
        password: Password to log in with.
        tls: Whether, or how, to speak TLS to it.
    """

    address: Required[str]
    username: str
    password: str
    tls: bool | SandboxEgressProxyTLSOpts


class SandboxNetworkRules(TypedDict, total=False):
    """What may go out of a sandbox.

    Attributes:
        allow_out: Addresses, CIDR blocks and host names that may be reached; they win over what is denied.
        deny_out: Addresses and CIDR blocks that may not be reached.
        dns_servers: Addresses of the name servers to use.
        egress_proxy: Proxy for everything that goes out.
        rules: What to do with requests that go out, by host name.
    """

    allow_out: list[str]
    deny_out: list[str]
    dns_servers: list[str]
    egress_proxy: SandboxEgressProxyOpts
    rules: dict[str, list[SandboxNetworkRule]]


class SandboxNetworkOpts(SandboxNetworkRules, total=False):
    """What may go in and out of a sandbox.

    Attributes:
        allow_public_traffic: Whether anyone may reach its ports. If not, requests have to carry the
            sandbox's `traffic_access_token` in the header e2b-traffic-access-token.
        mask_request_host: The Host header that servers in it see; `${PORT}` stands for the port.
        https_ports: Ports of it that speak TLS themselves.
    """

    allow_public_traffic: bool
    mask_request_host: str
    https_ports: list[int]


class SandboxNetworkUpdate(SandboxNetworkRules, total=False):
    """All that may go out of a sandbox from now on.

    Attributes:
        allow_internet_access: Whether it may reach the internet at all.
    """

    allow_internet_access: bool


def end_of_life(lifecycle: SandboxLifecycle | None) -> dict[str, Any]:
    """The fields of a creation that say what happens at the end of the sandbox's lifetime, if anything does.

    Raises:
        InvalidArgumentException: `lifecycle` contradicts itself, or holds what means nothing.
    """
    if lifecycle is None:
        return {}
    _require_known("lifecycle", lifecycle, SandboxLifecycle)
    end: Any = lifecycle.get("on_timeout")
    if isinstance(end, Mapping):
        _require_known("lifecycle['on_timeout']", end, SandboxOnTimeout)
        action, mode = end.get("action"), end.get("mode")
    else:
        action, mode = end, None
    resume = lifecycle.get("auto_resume")
    if action not in ("kill", "pause"):
        raise InvalidArgumentException(f"lifecycle: on_timeout has to be 'kill' or 'pause'; got {action!r}")
    if mode is not None and action == "kill":
        raise InvalidArgumentException(
            "lifecycle: nothing is saved of a sandbox that is killed; leave mode out"
        )
    if resume is not None and not isinstance(resume, bool):
        raise InvalidArgumentException(f"lifecycle: auto_resume has to be True or False; got {resume!r}")
    fields: dict[str, Any] = {"auto_pause": action == "pause"}
    if mode is not None:
        fields["auto_pause_memory"] = keeps_memory(mode)
    if resume and action == "kill":
        raise InvalidArgumentException("lifecycle: auto_resume needs on_timeout='pause'")
    if resume and mode == "filesystem":
        raise InvalidArgumentException("lifecycle: auto_resume needs the memory; pause with mode 'full'")
    if resume is not None:
        from sandbox_sync_rest.models.sandbox_auto_resume_config import SandboxAutoResumeConfig

        fields["auto_resume"] = SandboxAutoResumeConfig(enabled=resume)
    return fields


def network_config(network: SandboxNetworkOpts) -> SandboxNetworkConfig:
    """The network of a new sandbox, to be made where the contract's complaints are heard.

    Raises:
        InvalidArgumentException: It holds what means nothing.
    """
    from sandbox_sync_rest.models.sandbox_network_config import SandboxNetworkConfig

    return SandboxNetworkConfig.model_validate(_network("network", network, SandboxNetworkOpts))


def network_update(network: SandboxNetworkUpdate) -> SandboxNetworkUpdateConfig:
    """The new rules of a sandbox's network, likewise."""
    from sandbox_sync_rest.models.sandbox_network_update_config import SandboxNetworkUpdateConfig

    return SandboxNetworkUpdateConfig.model_validate(_network("network", network, SandboxNetworkUpdate))


def keeps_memory(mode: str) -> bool:
    """Whether the memory is saved, too.

    Raises:
        InvalidArgumentException: There is no such mode.
    """
    if mode not in ("full", "filesystem"):
        raise InvalidArgumentException(f"mode has to be 'full' or 'filesystem'; got {mode!r}")
    return mode == "full"


def _network(name: str, network: Any, kind: Any) -> dict[str, Any]:
    _require_known(name, network, kind)
    fields = dict(network)
    rules = fields.get("rules") or {}
    if not isinstance(rules, Mapping) or not all(isinstance(of_host, list) for of_host in rules.values()):
        raise InvalidArgumentException(f"{name}: rules has to be a dict of lists of rules, by host name")
    for host, of_host in rules.items():
        for rule in of_host:
            _require_known(f"{name}: rules[{host!r}]", rule, SandboxNetworkRule)
    proxy = fields.get("egress_proxy")
    if proxy is not None:
        _require_known(f"{name}: egress_proxy", proxy, SandboxEgressProxyOpts)
        fields["egress_proxy"] = {**proxy, "tls": _tls(name, proxy.get("tls"))}
    return fields


def _tls(name: str, tls: Any) -> dict[str, Any] | None:
    if tls is None:
        return None
    if isinstance(tls, bool):
        return {"enabled": tls}
    _require_known(f"{name}: tls", tls, SandboxEgressProxyTLSOpts)
    return {"enabled": True, **tls}


def _require_known(name: str, given: Any, kind: Any) -> None:
    """Refuse what is no mapping of the keys of this kind: a mistyped rule must not pass for none."""
    if not isinstance(given, Mapping):
        raise InvalidArgumentException(f"{name} has to be a dict; got {type(given).__name__}")
    unknown = [str(key) for key in given if key not in kind.__annotations__]
    if unknown:
        raise InvalidArgumentException(
            f"{name} knows no {', '.join(unknown)}; it knows {', '.join(kind.__annotations__)}"
        )
