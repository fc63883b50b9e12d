"""How the service is reached: option over environment over default."""

from __future__ import annotations

import pickle

import pytest

from sandbox_sync import local
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.errors import AuthenticationException, InvalidArgumentException

VARIABLES = [
    "E2B_API_KEY",
    "E2B_DOMAIN",
    "E2B_DEBUG",
    "E2B_API_URL",
    "E2B_SANDBOX_URL",
    "SANDBOX_SYNC_TRANSPORT",
    "SANDBOX_SYNC_CA_BUNDLE",
    "SANDBOX_SYNC_CLIENT_CERT",
]


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_defaults() -> None:
    config = ConnectionConfig.resolve(api_key="k")
    assert (config.domain, config.api_url, config.debug) == ("e2b.app", "https://api.e2b.app", False)
    assert (config.transport, config.request_timeout) == ("connect", 60.0)
    assert config.envd_url("i1") == "https://sandbox.e2b.app"


@pytest.mark.parametrize(
    ("variable", "value", "attribute", "expected"),
    [
        ("E2B_API_KEY", "from-env", "api_key", "from-env"),
        ("E2B_DOMAIN", "example.com", "api_url", "https://api.example.com"),
        ("E2B_DEBUG", "TRUE", "api_url", "http://localhost:3000"),
        ("E2B_API_URL", "http://other:1/", "api_url", "http://other:1"),
        ("E2B_SANDBOX_URL", "http://box:2", "sandbox_url", "http://box:2"),
        ("SANDBOX_SYNC_TRANSPORT", "grpc", "transport", "grpc"),
        ("SANDBOX_SYNC_CA_BUNDLE", "/ca.pem", "ca_bundle", "/ca.pem"),
        ("SANDBOX_SYNC_CLIENT_CERT", "/me.pem", "client_cert", "/me.pem"),
    ],
)
def test_the_environment_beats_the_default(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, attribute: str, expected: str
) -> None:
    monkeypatch.setenv(variable, value)
    config = ConnectionConfig.resolve(api_key=None if variable == "E2B_API_KEY" else "k")
    assert getattr(config, attribute) == expected


@pytest.mark.parametrize("variable", VARIABLES)
def test_an_empty_variable_is_no_variable(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    expected = ConnectionConfig.resolve(api_key="k")
    monkeypatch.setenv(variable, "")
    assert ConnectionConfig.resolve(api_key="k") == expected


def test_an_option_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(
        VARIABLES, ["e", "e.com", "true", "http://e", "http://e", "grpc", "/e", "/e"], strict=True
    ):
        monkeypatch.setenv(name, value)
    config = ConnectionConfig.resolve(
        api_key="o",
        domain="o.com",
        debug=False,
        api_url="http://o",
        sandbox_url="http://o2",
        transport="connect",
        ca_bundle="/o",
        client_cert=("/o", "/o.key"),
        request_timeout=0,
    )
    assert config == ConnectionConfig(
        domain="o.com",
        api_url="http://o",
        api_key="o",
        debug=False,
        request_timeout=None,
        sandbox_url="http://o2",
        transport="connect",
        ca_bundle="/o",
        client_cert=("/o", "/o.key"),
    )


def test_without_a_key_both_ways_on_are_named() -> None:
    """G26: a newcomer without an account is told what to do."""
    with pytest.raises(AuthenticationException, match=r"E2B_API_KEY.*E2B_DOMAIN=local"):
        ConnectionConfig.resolve()


def test_debug_mode_needs_no_key() -> None:
    config = ConnectionConfig.resolve(debug=True)
    assert config.require_api_key() == ""
    assert config.envd_url("i1") == "http://localhost:49983"
    assert config.get_host("i1", 3000) == "localhost:3000"


@pytest.mark.parametrize(
    "options",
    [
        {"transport": "http2"},
        {"api_url": "localhost:3000"},
        {"sandbox_url": "ftp://x"},
        {"request_timeout": -1},
        {"api_key": 5},
        {"domain": b"e2b.app"},
    ],
)
def test_values_that_cannot_be_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidArgumentException, match=next(iter(options))):
        ConnectionConfig.resolve(**{"api_key": "k", **options})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "sandbox_domain", "envd", "direct", "host"),
    [
        ({}, None, "https://sandbox.e2b.app", "https://49983-i1.e2b.app", "80-i1.e2b.app"),
        ({}, "e2b.dev", "https://sandbox.e2b.dev", "https://49983-i1.e2b.dev", "80-i1.e2b.dev"),
        ({}, "x.org", "https://49983-i1.x.org", "https://49983-i1.x.org", "80-i1.x.org"),
        ({"domain": "y.org"}, None, "https://49983-i1.y.org", "https://49983-i1.y.org", "80-i1.y.org"),
        ({"sandbox_url": "https://s:8"}, None, "https://s:8", "https://s:8", "80-i1.e2b.app"),
        (
            {"sandbox_url": "http://127.0.0.1:7"},
            None,
            "http://127.0.0.1:7",
            "http://49983-i1.localhost:7",
            "80-i1.localhost:7",
        ),
    ],
)
def test_where_a_sandbox_is(
    options: dict[str, str], sandbox_domain: str | None, envd: str, direct: str, host: str
) -> None:
    """G25: with a URL given, no other host is made up."""
    config = ConnectionConfig.resolve(api_key="k", **options)  # type: ignore[arg-type]
    assert config.envd_url("i1", sandbox_domain) == envd
    assert config.direct_envd_url("i1", sandbox_domain) == direct
    assert config.get_host("i1", 80, sandbox_domain) == host


@pytest.mark.parametrize("sandbox_id", ["a.evil.com/", "a b", "a\r\nx: y", "é", "", "a@b", "../x"])
def test_an_id_that_would_change_the_host_is_refused(sandbox_id: str) -> None:
    config = ConnectionConfig.resolve(api_key="k", domain="x.org")
    with pytest.raises(InvalidArgumentException):
        config.envd_url(sandbox_id)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(InvalidArgumentException):
        ConnectionConfig.resolve(api_key="k").get_host("i1", port)


def test_the_key_is_neither_shown_nor_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    """G61: a configuration crosses process borders without its key; the environment there has one."""
    config = ConnectionConfig.resolve(api_key="e2b_secret", headers={"x": "e2b_secret"}, domain="x.org")
    assert "e2b_secret" not in repr(config)
    data = pickle.dumps(config)
    assert b"e2b_secret" not in data
    twin = pickle.loads(data)
    assert (twin.domain, twin.api_key) == ("x.org", None)
    with pytest.raises(AuthenticationException):
        twin.require_api_key()
    monkeypatch.setenv("E2B_API_KEY", "of-the-worker")
    assert twin.require_api_key() == "of-the-worker"


def test_local_asks_for_this_machines_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """G26: domain="local" needs no key, and an account's key is not given to the local server."""
    monkeypatch.setenv("E2B_API_KEY", "of-an-account")
    monkeypatch.setattr(local, "endpoint", lambda: local.LocalEndpoint("http://127.0.0.1:9", "local-key"))
    config = ConnectionConfig.resolve(domain="local")
    assert (config.api_url, config.envd_url("i1")) == ("http://127.0.0.1:9", "http://127.0.0.1:9")
    assert config.api_key == "local-key"
    assert pickle.loads(pickle.dumps(config)).require_api_key() == "local-key"


def test_the_deadline_of_a_call() -> None:
    config = ConnectionConfig.resolve(api_key="k", request_timeout=5)
    assert 4 < (config.deadline().remaining() or 0) <= 5
    assert 1 < (config.deadline(2).remaining() or 0) <= 2
    assert config.deadline(0).remaining() is None
    with pytest.raises(InvalidArgumentException):
        config.deadline(-1)
