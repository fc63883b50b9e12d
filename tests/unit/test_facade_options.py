"""What a sandbox can be asked to be, to do at the end of its life, and to let in and out."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox_sync import InvalidArgumentException, Sandbox, SandboxException, SandboxNotFoundException
from tests.unit.facade_service import CREATED, running, sandbox

PAUSE_FILES = {"action": "pause", "mode": "filesystem"}


@pytest.mark.parametrize(
    ("lifecycle", "sent"),
    [
        ({"on_timeout": "kill"}, {"autoPause": False}),
        ({"on_timeout": "pause"}, {"autoPause": True}),
        ({"on_timeout": {"action": "kill"}}, {"autoPause": False}),
        ({"on_timeout": {"action": "pause"}}, {"autoPause": True}),
        (
            {"on_timeout": {"action": "pause", "mode": "full"}, "auto_resume": True},
            {"autoPause": True, "autoPauseMemory": True, "autoResume": {"enabled": True}},
        ),
        ({"on_timeout": PAUSE_FILES}, {"autoPause": True, "autoPauseMemory": False}),
        ({"on_timeout": "pause", "auto_resume": True}, {"autoPause": True, "autoResume": {"enabled": True}}),
        (
            {"on_timeout": "kill", "auto_resume": False},
            {"autoPause": False, "autoResume": {"enabled": False}},
        ),
    ],
)
def test_the_end_of_a_life_goes_on_the_wire(lifecycle: Any, sent: dict[str, Any]) -> None:
    with running() as (service, options):
        Sandbox.create(**options, lifecycle=lifecycle)
        assert service.asked[0].body == {"templateID": "base", "metadata": {}, "envVars": {}, **sent}


@pytest.mark.parametrize(
    ("lifecycle", "named"),
    [
        ({"on_timeout": "kill", "auto_resume": True}, "auto_resume"),
        ({"on_timeout": PAUSE_FILES, "auto_resume": True}, "memory"),
        ({"on_timeout": {"action": "kill", "mode": "full"}}, "mode"),
        ({"on_timeout": {"action": "pause", "mode": "half"}}, "mode"),
        ({"on_timeout": {"mode": "full"}}, "on_timeout"),
        ({"on_timeout": "sleep"}, "on_timeout"),
        ({"on_timeout": "pause", "auto_resume": "yes"}, "auto_resume"),
        ({"auto_resume": True}, "on_timeout"),
        ({"on_timeout": "pause", "autoResume": True}, "autoResume"),
        ({}, "on_timeout"),
        ("pause", "lifecycle"),
    ],
)
def test_an_end_that_contradicts_itself_is_refused(lifecycle: Any, named: str) -> None:
    with running() as (service, options):
        with pytest.raises(InvalidArgumentException, match=named):
            Sandbox.create(**options, lifecycle=lifecycle)
        assert service.asked == []


NETWORK: Any = {
    "allow_out": ["1.1.1.1", "*.example.com"],
    "deny_out": ["0.0.0.0/0"],
    "dns_servers": ["9.9.9.9"],
    "egress_proxy": {"address": "proxy:1080", "username": "u", "password": "p-secret", "tls": True},
    "rules": {"api.example.com": [{"transform": {"headers": {"Authorization": "Bearer s"}}}]},
}
NETWORK_SENT = {
    "allowOut": ["1.1.1.1", "*.example.com"],
    "denyOut": ["0.0.0.0/0"],
    "dnsServers": ["9.9.9.9"],
    "egressProxy": {
        "address": "proxy:1080",
        "username": "u",
        "password": "p-secret",
        "tls": {"enabled": True},
    },
    "rules": {"api.example.com": [{"transform": {"headers": {"Authorization": "Bearer s"}}}]},
}


def test_a_network_goes_on_the_wire() -> None:
    with running() as (service, options):
        more: Any = {"allow_public_traffic": False, "mask_request_host": "x:${PORT}", "https_ports": [443]}
        Sandbox.create(**options, allow_internet_access=False, network=NETWORK | more)
        assert service.asked[0].body["allow_internet_access"] is False
        assert service.asked[0].body["network"] == {
            **NETWORK_SENT,
            "allowPublicTraffic": False,
            "maskRequestHost": "x:${PORT}",
            "httpsPorts": [443],
        }


def test_tls_to_a_proxy_can_be_a_word_or_more() -> None:
    with running() as (service, options):
        for tls in (False, {"server_name": "p.example.com", "ca_cert": "PEM"}):
            proxy: Any = {"address": "proxy:1080", "tls": tls}
            Sandbox.create(**options, network={"egress_proxy": proxy})
        Sandbox.create(**options, network={"egress_proxy": {"address": "proxy:1080"}})
        sent = [asked.body["network"]["egressProxy"].get("tls") for asked in service.asked]
        assert sent == [
            {"enabled": False},
            {"enabled": True, "serverName": "p.example.com", "caCert": "PEM"},
            None,
        ]


@pytest.mark.parametrize(
    ("network", "named"),
    [
        ({"allowOut": []}, "allowOut"),
        ({"allow_out": "1.1.1.1"}, "allow_out"),
        ({"egress_proxy": {}}, "address"),
        ({"egress_proxy": {"address": "a", "pasword": "p-secret"}}, "pasword"),
        ({"egress_proxy": {"address": "a", "tls": {"verify": False}}}, "verify"),
        ({"egress_proxy": "p-secret"}, "egress_proxy"),
        ({"rules": {"host": [{"headers": {"a": "p-secret"}}]}}, "headers"),
        ({"rules": ["p-secret"]}, "rules"),
        ({"rules": {"host": 7}}, "rules"),
        (["p-secret"], "network"),
    ],
)
def test_rules_that_mean_nothing_are_refused(network: Any, named: str) -> None:
    """A mistyped rule must not pass for none; and what it held is not shown."""
    with sandbox() as (service, sb):
        for call in (
            lambda: Sandbox.create(api_key="k", api_url=sb.connection_config.api_url, network=network),
            lambda: sb.update_network(network),
        ):
            with pytest.raises(InvalidArgumentException, match=named) as caught:
                call()
            assert "p-secret" not in str(caught.value)
        assert len(service.asked) == 1


def test_updating_the_network_replaces_it() -> None:
    with sandbox() as (service, sb):
        service.answer("PUT", "/sandboxes/isandbox/network", (204, None))
        options: dict[str, Any] = {"api_key": "key", "api_url": sb.connection_config.api_url}
        sb.update_network({"allow_internet_access": False} | NETWORK)
        Sandbox.update_network("isandbox", {}, **options)
        first, second = service.requests("PUT")
        assert first.body == {"allow_internet_access": False, **NETWORK_SENT}
        assert second.body == {}
        with pytest.raises(InvalidArgumentException, match="allow_public_traffic"):
            sb.update_network({"allow_public_traffic": False})  # type: ignore[typeddict-unknown-key]
        with pytest.raises(SandboxNotFoundException):
            Sandbox.update_network("iother", {}, **options)


def test_what_the_service_does_not_have_is_told_with_its_reason() -> None:
    with sandbox() as (service, sb):
        reason = {"code": 501, "message": "there is no firewall here"}
        service.answer("PUT", "/sandboxes/isandbox/network", (501, reason))
        service.answer("POST", "/v2/sandboxes", (501, reason))
        for call in (
            lambda: sb.update_network({}),
            lambda: Sandbox.create(api_key="k", api_url=sb.connection_config.api_url),
        ):
            with pytest.raises(SandboxException, match="there is no firewall here") as caught:
                call()
            assert caught.value.status == 501


def test_only_who_creates_or_connects_learns_the_traffic_token(monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    monkeypatch.setenv("E2B_API_KEY", "key")
    with running() as (service, options):
        told = {**CREATED, "trafficAccessToken": "traffic-token", "domain": "boxes.example"}
        service.answer("POST", "/v2/sandboxes", (201, told))
        service.answer("POST", "/v2/sandboxes/isandbox/connect", (200, told))
        service.answer("GET", "/sandboxes/isandbox", (200, {**CREATED, "domain": "boxes.example"}))
        sb = Sandbox.create(**options)
        assert sb.traffic_access_token == "traffic-token"
        assert sb.sandbox_domain == "boxes.example"
        for thing in (sb, sb._inside, sb.connection_config):
            assert "traffic-token" not in repr(thing)
            assert "token-of-the-sandbox" not in repr(thing)
        copy = pickle.loads(pickle.dumps(sb))
        assert copy.traffic_access_token is None
        assert copy.sandbox_domain == "boxes.example"
        assert copy.connect().traffic_access_token == "traffic-token"
