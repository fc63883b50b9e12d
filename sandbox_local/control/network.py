"""What may go out of a sandbox: from the rules in a request to a policy."""

from __future__ import annotations

from collections.abc import Iterable

from sandbox_sync_rest.models.new_sandbox import NewSandbox
from sandbox_sync_rest.models.new_sandbox_v2 import NewSandboxV2
from sandbox_sync_rest.models.sandbox_network_config import SandboxNetworkConfig
from sandbox_sync_rest.models.sandbox_network_update_config import SandboxNetworkUpdateConfig

from sandbox_local.control.errors import BadRequest, Unsupported
from sandbox_local.egress.policy import BadRule, BeyondRules, Policy

_SWITCHED_OFF = (
    "sandboxes of this local server have no network, so there is nothing to rule; start it with one: "
    "`sandbox_local serve --internet`, LocalServer(internet=True), or SANDBOX_LOCAL_INTERNET=1 in the "
    "environment for domain='local'"
)

_BEYOND_US = {
    "dns_servers": "sandboxes of this local server ask the name servers of their machine",
    "egress_proxy": "this local server sends through no proxy",
    "https_ports": "this local server speaks no TLS to the ports of sandboxes",
    "mask_request_host": "this local server passes the Host header on as it is",
    "rules": "this local server changes nothing in requests that go out",
}

Rules = SandboxNetworkConfig | SandboxNetworkUpdateConfig


def policy_of(body: NewSandbox | NewSandboxV2, *, internet: bool) -> Policy:
    """What a create request lets out.

    Args:
        body: The request.
        internet: Whether this server gives sandboxes a network.

    Raises:
        HttpError: The rules are wrong (400), or can't be had here (501).
    """
    rules = body.network or SandboxNetworkConfig()
    return _policy(rules, "network.", body.allow_internet_access is not False, internet)


def policy_of_update(body: SandboxNetworkUpdateConfig, *, internet: bool) -> Policy:
    """What a request that replaces the rules lets out; arguments and errors are those of `policy_of`."""
    if not internet:
        raise Unsupported(_SWITCHED_OFF)
    return _policy(body, "", body.allow_internet_access is not False, internet)


def _policy(rules: Rules, where: str, allowed: bool, internet: bool) -> Policy:
    for field, reason in _refused(rules, internet):
        raise Unsupported(f"{where}{field}: {reason}")
    try:
        return Policy(allowed, tuple(rules.allow_out or ()), tuple(rules.deny_out or ()))
    except BadRule as error:
        raise BadRequest(f"{where}{error}") from None
    except BeyondRules as error:
        raise Unsupported(f"{where}{error}") from None


def _refused(rules: Rules, internet: bool) -> Iterable[tuple[str, str]]:
    for name, value in rules:
        field = type(rules).model_fields.get(name)
        alias = (field.alias if field else None) or name
        if name in ("allow_public_traffic", "allow_internet_access") or not value:
            continue
        if name not in ("allow_out", "deny_out"):
            yield alias, _BEYOND_US.get(name, "this local server does not know it")
        elif not internet:
            yield alias, _SWITCHED_OFF
