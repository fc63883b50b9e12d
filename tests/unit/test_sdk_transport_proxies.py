"""Which proxy counts for which URL, and what it is shown."""

from __future__ import annotations

import base64
import traceback

import pytest

from sandbox_sync import errors
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.transport.pools import Origin
from sandbox_sync.transport.proxies import authorization, proxy_for

VARIABLES = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"]
URL = "https://api.e2b.app"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*VARIABLES, *(name.lower() for name in VARIABLES), "REQUEST_METHOD"]:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("url", "option", "environment", "expected"),
    [
        ("https://api.e2b.app", None, {}, None),
        ("https://api.e2b.app", None, {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("https://api.e2b.app", None, {"https_proxy": "p:1"}, "http://p:1"),
        ("http://api.e2b.app", None, {"HTTPS_PROXY": "http://p:1"}, None),
        ("http://api.e2b.app", None, {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ("http://api.e2b.app", None, {"HTTP_PROXY": "http://p:1", "REQUEST_METHOD": "GET"}, None),
        ("http://api.e2b.app", None, {"http_proxy": "http://p:1", "REQUEST_METHOD": "GET"}, "http://p:1"),
        ("https://api.e2b.app", None, {"ALL_PROXY": "http://p:1"}, "http://p:1"),
        ("https://api.e2b.app", None, {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "e2b.app"}, None),
        ("https://api.e2b.app", None, {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        ("https://api.e2b.app", None, {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "app.e2b"}, "http://p:1"),
        (
            "https://api.e2b.app",
            None,
            {"HTTPS_PROXY": "http://p:1", "https_proxy": "http://q:2"},
            "http://q:2",
        ),
        ("https://api.e2b.app", None, {"HTTPS_PROXY": ""}, None),
        ("https://api.e2b.app", "", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("http://api.e2b.app", None, {"HTTP_PROXY": "http://p:1", "ALL_PROXY": "http://q:2"}, "http://p:1"),
        ("https://api.e2b.app", "http://o:2", {"HTTPS_PROXY": "http://p:1"}, "http://o:2"),
        ("https://api.e2b.app", "http://o:2", {"NO_PROXY": "*"}, "http://o:2"),
        ("http://127.0.0.1:3000", "http://o:2", {"HTTP_PROXY": "http://p:1"}, None),
        ("http://[::1]:3000", "http://o:2", {}, None),
        ("http://127.9.9.9", None, {"HTTP_PROXY": "http://p:1"}, None),
        ("http://80-i1.localhost:3000", None, {"HTTP_PROXY": "http://p:1"}, None),
    ],
)
def test_which_proxy_counts(
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    option: str | None,
    environment: dict[str, str],
    expected: str | None,
) -> None:
    """G23: the table that REST, files, Connect and gRPC go by."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url, option) == expected


@pytest.mark.parametrize(
    ("url", "rules", "exempt"),
    [
        ("https://api.e2b.app", "api.e2b.app", True),
        ("https://api.e2b.app", "API.E2B.APP", True),
        ("https://API.e2b.app", "e2b.app", True),
        ("https://api.e2b.app.", "e2b.app", True),
        ("https://api.e2b.app", " other.org , e2b.app ", True),
        ("https://api.e2b.app", ".e2b.app", True),
        ("https://api.e2b.app", "*.e2b.app", True),
        ("https://e2b.app", ".e2b.app", True),
        ("https://note2b.app", "e2b.app", False),
        ("https://api.e2b.app", "app.e2b", False),
        ("https://api.e2b.app", "api", False),
        ("https://api.e2b.app", "", False),
        ("https://api.e2b.app", ",", False),
        ("https://api.e2b.app", "*", True),
        ("https://api.e2b.app", "other.org,*", True),
        ("https://api.e2b.app", "e2b.app:443", True),
        ("https://api.e2b.app:443", "e2b.app:443", True),
        ("http://api.e2b.app", "e2b.app:80", True),
        ("https://api.e2b.app", "e2b.app:80", False),
        ("https://api.e2b.app:8443", "api.e2b.app:8443", True),
        ("https://api.e2b.app:8443", "api.e2b.app", True),
        ("https://10.1.2.3", "10.1.2.3", True),
        ("https://10.1.2.3", "10.0.0.0/8", True),
        ("https://10.1.2.3", "10.1.2.0/255.255.255.0", True),
        ("https://10.1.2.3:99", "10.1.2.3:99", True),
        ("https://10.1.2.3:99", "10.1.2.3:98", False),
        ("https://11.1.2.3", "10.0.0.0/8", False),
        ("https://10.1.2.30", "10.1.2.3", False),
        ("https://[fd00::2]", "fd00::2", True),
        ("https://[fd00::2]", "[FD00::2]", True),
        ("https://[fd00::2]:99", "[fd00::2]:99", True),
        ("https://[fd00::2]:99", "[fd00::2]:98", False),
        ("https://[fd00::2]", "fd00::/8", True),
        ("https://[fd00::2]", "fe80::/8", False),
        ("https://10.1.2.3", "fd00::/8", False),
        ("https://10.example.org", "10.0.0.0/8", False),
    ],
)
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_what_no_proxy_names(
    monkeypatch: pytest.MonkeyPatch, url: str, rules: str, exempt: bool, variable: str
) -> None:
    """G23: hosts, domains, ports, addresses, networks, and everything."""
    monkeypatch.setenv("ALL_PROXY", "http://p:1")
    monkeypatch.setenv(variable, rules)
    assert proxy_for(url, None) == (None if exempt else "http://p:1")


@pytest.mark.parametrize(
    "proxy",
    [
        "http://me:sesame#1@p:1",
        "http://me:sesame/1@p:1",
        "http://me:sesame@[::1",
        "http://me:sesame@:1",
        "me:sesame@p:port",
        "http://me:sesame@p:0",
        "http://me:sesame@p p",
        "http://me:sesame@p\n",
        "://sesame",
    ],
)
def test_a_proxy_that_is_no_url_is_refused_without_being_shown(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    for option, environment in ((proxy, ""), (None, proxy)):
        monkeypatch.setenv("HTTPS_PROXY", environment)
        with pytest.raises(errors.InvalidArgumentException, match=r"URL|supported") as caught:
            Origin(URL, ConnectionConfig.resolve(api_key="k", proxy=option))
        assert "sesame" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("proxy", "credentials"),
    [
        ("http://p:1", None),
        ("http://me:pass@p:1", "me:pass"),
        ("http://me@p:1", "me:"),
        ("http://m%40e:p%3A%2F%23%25@p:1", "m@e:p:/#%"),
        ("http://me:p@ss@p:1", "me:p@ss"),
        ("http://me:%C3%A9%E2%82%AC@p:1", "me:\u00e9\u20ac"),
    ],
)
def test_a_password_for_a_proxy_is_shown_to_it_as_it_is(proxy: str, credentials: str | None) -> None:
    header = authorization(proxy).get("proxy-authorization")
    if credentials is None:
        assert header is None
    else:
        assert header is not None
        assert base64.b64decode(header.removeprefix("Basic ")).decode() == credentials


def test_a_kind_of_proxy_that_is_not_supported_is_refused_without_its_password() -> None:
    """G40."""
    with pytest.raises(errors.InvalidArgumentException, match="socks5") as caught:
        proxy_for("https://api.e2b.app", "socks5://user:secret@p:1080")
    assert "secret" not in str(caught.value)
