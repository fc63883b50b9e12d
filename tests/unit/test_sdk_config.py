"""How the service is reached: option over environment over default."""

from __future__ import annotations

import inspect
import pickle
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from sandbox_sync import local
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.errors import AuthenticationException, InvalidArgumentException
from sandbox_sync.transport.pools import Origin

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
API = "https://api.e2b.app"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_defaults() -> None:
    config = ConnectionConfig.resolve(api_key="k")
    assert (config.domain, config.api_url, config.debug) == ("e2b.app", "https://api.e2b.app", False)
    assert (config.transport, config.request_timeout) == ("connect", 60.0)
    assert config.envd_url("i1") == "https://sandbox.e2b.app"


class Setting(NamedTuple):
    """One option and what it may be set to; None where there is no variable, or no default.

    Attributes:
        variable: The environment variable that stands in for it.
        in_environment: A value of the variable, and what it means.
        as_option: A value of the option, and what it means.
        default: What it is when it is left out.
        attribute: What to look at in the configuration, unless it has the option's name.
        empty: A value of the option that is as good as none.
    """

    variable: str | None
    in_environment: tuple[str, object]
    as_option: tuple[object, object]
    default: object
    attribute: str | None = None
    empty: object = ""


SETTINGS = {
    "api_key": Setting("E2B_API_KEY", ("e", "e"), ("o", "o"), None),
    "domain": Setting("E2B_DOMAIN", ("e.com", "e.com"), ("o.com", "o.com"), "e2b.app"),
    "domain, as it tells the API's URL": Setting(
        "E2B_DOMAIN",
        ("e.com", "https://api.e.com"),
        ("o.com:8443", "https://api.o.com:8443"),
        "https://api.e2b.app",
        "api_url",
    ),
    "debug": Setting("E2B_DEBUG", ("true", True), (False, False), False, empty=None),
    "debug, in capitals": Setting("E2B_DEBUG", ("TRUE", True), (False, False), False, empty=None),
    "debug, turned off": Setting("E2B_DEBUG", ("false", False), (True, True), False, empty=None),
    "debug, as it tells the API's URL": Setting(
        "E2B_DEBUG", ("True", "http://localhost:3000"), (False, API), API, "api_url", empty=None
    ),
    "api_url": Setting("E2B_API_URL", ("http://e:1/", "http://e:1"), ("https://o/p/", "https://o/p"), API),
    "sandbox_url": Setting("E2B_SANDBOX_URL", ("http://e:2", "http://e:2"), ("http://o", "http://o"), None),
    "transport": Setting("SANDBOX_SYNC_TRANSPORT", ("grpc", "grpc"), ("auto", "connect"), "connect"),
    "ca_bundle": Setting("SANDBOX_SYNC_CA_BUNDLE", ("/e", "/e"), ("/o", "/o"), None),
    "client_cert": Setting("SANDBOX_SYNC_CLIENT_CERT", ("/e", "/e"), (("/o", "/k"), ("/o", "/k")), None),
    "client_cert, in a list": Setting(
        "SANDBOX_SYNC_CLIENT_CERT", ("/e", "/e"), (["/o", "/k"], ("/o", "/k")), None, empty=()
    ),
    "request_timeout": Setting(None, ("", None), (5, 5.0), 60.0, empty=None),
    "request_timeout, turned off": Setting(None, ("", None), (0, None), 60.0, empty=None),
    "proxy": Setting(None, ("", None), ("http://p:1", "http://p:1"), None),
    "headers": Setting(None, ("", None), ({"a": "b"}, {"a": "b"}), {}, empty={}),
    "retries": Setting(None, ("", None), (5, 5), 3, empty=None),
    "retries, turned off": Setting(None, ("", None), (0, 0), 3, empty=None),
    "api_headers": Setting(None, ("", None), ({"a": "b"}, {"a": "b"}), {}, "headers", empty={}),
}

WAYS_TO_SET = [
    "unset",
    "empty variable",
    "empty option",
    "variable",
    "variable and empty option",
    "option",
    "option and empty variable",
    "both",
]


@pytest.mark.parametrize(
    ("name", "way"),
    [
        (name, way)
        for name, setting in SETTINGS.items()
        for way in WAYS_TO_SET
        if setting.variable or way in ("unset", "empty option", "option")
    ],
)
def test_option_over_environment_over_default(monkeypatch: pytest.MonkeyPatch, name: str, way: str) -> None:
    """Every option, set in every way; what is set but empty is not set."""
    option = name.partition(",")[0]
    setting = SETTINGS[name]
    if "variable" in way or way == "both":
        assert setting.variable is not None
        monkeypatch.setenv(setting.variable, "" if "empty variable" in way else setting.in_environment[0])
    options: dict[str, Any] = {} if option == "api_key" else {"api_key": "k"}
    expected = setting.default
    if way in ("variable", "variable and empty option"):
        expected = setting.in_environment[1]
    if "empty option" in way:
        options[option] = setting.empty
    if way in ("option", "option and empty variable", "both"):
        options[option], expected = setting.as_option
    if option == "api_key" and expected is None:
        with pytest.raises(AuthenticationException):
            ConnectionConfig.resolve(**options)
    else:
        config = ConnectionConfig.resolve(**options)
        assert getattr(config, setting.attribute or option) == expected


def test_the_table_is_complete() -> None:
    named = {name.partition(",")[0] for name in SETTINGS}
    assert named == set(inspect.signature(ConnectionConfig.resolve).parameters) - {"logger"}
    assert {setting.variable for setting in SETTINGS.values()} == {*VARIABLES, None}


def test_both_names_of_the_extra_headers_may_be_used() -> None:
    config = ConnectionConfig.resolve(
        api_key="k", headers={"a": "1", "b": "1"}, api_headers={"b": "2", "c": "2"}
    )
    assert config.headers == {"a": "1", "b": "2", "c": "2"}


@given(st.text(min_size=1).filter(lambda key: "\0" not in key))
def test_a_key_may_look_like_anything(key: str) -> None:
    """G25: keys of other services than E2B's own are keys, too."""
    assert ConnectionConfig.resolve(api_key=key).require_api_key() == key


URLS = st.one_of(
    st.text(),
    st.builds(
        "{}://{}{}".format, st.sampled_from(["http", "https", "HTTP", "ftp", ""]), st.text(), st.text()
    ),
    st.builds("http://{}:{}".format, st.from_regex(r"[a-z.\[\]%]{1,9}"), st.integers(-1, 70000)),
)


@given(option=st.sampled_from(["api_url", "sandbox_url"]), url=URLS)
def test_a_url_can_be_used_or_is_refused(option: str, url: str) -> None:
    """Before anything is sent, and with no errors but those of the SDK."""
    try:
        config = ConnectionConfig.resolve(api_key="k", **{option: url})  # type: ignore[arg-type]
        Origin(config.api_url if option == "api_url" else config.envd_url("i1"), config)
    except InvalidArgumentException:
        return
    config.direct_envd_url("i1")
    config.get_host("i1", 80)


@given(domain=st.text())
@example(domain="%A")  # which begins a zone, in which letters count
def test_a_domain_can_be_used_or_is_refused_at_once(domain: str) -> None:
    assume(domain != "local")
    try:
        config = ConnectionConfig.resolve(api_key="k", domain=domain)
    except InvalidArgumentException:
        return
    assert urlsplit(config.api_url).hostname == f"api.{(domain or 'e2b.app').partition(':')[0].lower()}"


@pytest.mark.parametrize(
    "url", ["https://me:secret@api.test", "ftp://me:secret@x", "me:secret@x", "http://s:secret@["]
)
@pytest.mark.parametrize("option", ["api_url", "sandbox_url"])
def test_a_password_in_a_url_is_refused_without_being_shown(option: str, url: str) -> None:
    with pytest.raises(InvalidArgumentException, match=option) as caught:
        ConnectionConfig.resolve(api_key="k", **{option: url})  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)


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
        {"api_url": "http://"},
        {"api_url": "http://x:port"},
        {"api_url": "http://x:99999"},
        {"api_url": "http://[::1"},
        {"api_url": "http://x/?query"},
        {"api_url": "http://x\r\ny"},
        {"api_key": 5},
        {"domain": b"e2b.app"},
        {"domain": "https://e2b.app"},
        {"domain": "me@e2b.app"},
        {"debug": "false"},
        {"proxy": {"https": "http://p"}},
        {"headers": {"x": 1}},
        {"api_headers": [("x", "y")]},
        {"ca_bundle": 1},
        {"client_cert": ("/one", "/two", "/three")},
        {"request_timeout": float("nan")},
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
        (
            {"sandbox_url": "https://localhost:7"},
            None,
            "https://localhost:7",
            "https://49983-i1.localhost:7",
            "80-i1.localhost:7",
        ),
        ({"debug": True}, None, "http://localhost:49983", "http://localhost:49983", "localhost:80"),
        (
            {"debug": True, "sandbox_url": "https://s:8"},
            "x.org",
            "https://s:8",
            "https://s:8",
            "localhost:80",
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
    config = ConnectionConfig.resolve(
        api_key="e2b_secret",
        headers={"x": "e2b_secret"},
        api_headers={"y": "e2b_secret"},
        proxy="http://me:e2b_secret@proxy:3128",
        domain="x.org",
    )
    assert "e2b_secret" not in repr(config)
    data = pickle.dumps(config)
    assert b"e2b_secret" not in data
    twin = pickle.loads(data)
    assert (twin.domain, twin.api_key, twin.proxy) == ("x.org", None, None)
    with pytest.raises(AuthenticationException):
        twin.require_api_key()
    monkeypatch.setenv("E2B_API_KEY", "of-the-worker")
    assert twin.require_api_key() == "of-the-worker"


def test_a_proxy_without_a_password_is_pickled() -> None:
    config = ConnectionConfig.resolve(api_key="k", proxy="http://proxy:3128")
    assert pickle.loads(pickle.dumps(config)).proxy == "http://proxy:3128"


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
