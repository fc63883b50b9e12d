"""Real sandboxes through a real proxy, on every path, and past it where that is asked for."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator

import pytest
import trustme

from sandbox_local import LocalServer
from sandbox_sync import (
    ConnectionException,
    InvalidArgumentException,
    Sandbox,
    SandboxException,
)
from tests.live import tour
from tests.live.proxy_server import NAME, RunningProxy, a_proxy
from tests.live.tls_front import a_front

VARIABLES = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"]
# With what one would have to write in another way in a URL.
USER, PASSWORD = "me", "p@s:s/w#rd%"


NO_SUCH_NAME = "[Rr]esol|[Nn]ame"
# One entry for each path that leads to a sandbox.
PATHS = ("run", "read", "is running")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def bundle(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def context_of(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME, "127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def tls_port(server: LocalServer, authority: trustme.CA) -> Iterator[int]:
    with a_front(context_of(authority), port_of(server)) as port:
        yield port


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    with a_proxy(tmp_path_factory.mktemp("proxy")) as running:
        yield running


@pytest.fixture(scope="module")
def strict_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    with a_proxy(tmp_path_factory.mktemp("proxy"), USER, PASSWORD) as running:
        yield running


@pytest.fixture
def dead_proxy() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://{USER}:sesame@127.0.0.1:{port}"


@pytest.fixture(autouse=True)
def _no_settings(server_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*VARIABLES, *(name.lower() for name in VARIABLES), "REQUEST_METHOD"]:
        monkeypatch.delenv(name, raising=False)


def port_of(server: LocalServer) -> int:
    return int(server.url.rpartition(":")[2])


@pytest.fixture(params=["http", "https"])
def url(
    request: pytest.FixtureRequest, server: LocalServer, bundle: str, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The server under a name that only the proxy can find, without and with encryption."""
    port = port_of(server) if request.param == "http" else request.getfixturevalue("tls_port")
    url = f"{request.param}://{NAME}:{port}"
    monkeypatch.setenv("E2B_API_URL", url)
    monkeypatch.setenv("E2B_SANDBOX_URL", url)
    monkeypatch.setenv("SANDBOX_SYNC_CA_BUNDLE", bundle)
    return url


def test_everything_goes_through_the_proxy(url: str, transport: str, strict_proxy: RunningProxy) -> None:
    """G23, G40: REST, files, Connect and gRPC; the password is shown to the proxy and to nobody else."""
    before = len(strict_proxy.asked())
    tour.take(proxy=strict_proxy.url)
    asked = strict_proxy.asked()[before:]
    assert {one.authority for one in asked} == {url.partition("//")[2]}
    assert all("proxy-authorization" in one.headers for one in asked)
    methods = {one.method for one in asked}
    if url.startswith("https:"):
        assert methods == {"CONNECT"}
        assert not any("x-api-key" in one.headers or "x-access-token" in one.headers for one in asked)
    else:
        assert methods == {"GET", "POST", "DELETE", *(["CONNECT"] if transport == "grpc" else [])}


@pytest.mark.parametrize("spelling", [str.upper, str.lower])
@pytest.mark.parametrize("variable", ["{scheme}_proxy", "all_proxy"])
def test_the_environment_names_the_proxy(
    url: str,
    transport: str,
    proxy: RunningProxy,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    spelling: Callable[[str], str],
) -> None:
    """G23: HTTPS_PROXY, HTTP_PROXY and ALL_PROXY, in capitals or not."""
    scheme = url.partition(":")[0]
    monkeypatch.setenv(spelling(variable.format(scheme=scheme)), proxy.url)
    with Sandbox.create() as sandbox:  # which nobody but the proxy can find
        sandbox.files.write("a.txt", "text")
        assert sandbox.commands.run("cat a.txt").stdout == "text"


def test_a_proxy_that_is_reached_over_tls(url: str, proxy: RunningProxy, authority: trustme.CA) -> None:
    """G23: encryption inside of encryption for https:// targets."""
    with a_front(context_of(authority), proxy.port) as port:
        before = len(proxy.asked())
        tour.take(proxy=f"https://localhost:{port}")
        assert len(proxy.asked()) > before


@pytest.mark.parametrize("kind", ["https", "socks5", "socks5h", "socks4"])
def test_grpc_refuses_a_proxy_that_it_cannot_use(server: LocalServer, kind: str) -> None:
    """G40: at once, before anything is sent, and with no word of the password."""
    with Sandbox.create(transport="grpc") as sandbox:
        bad = f"{kind}://me:sesame@proxy.test:1"
        reached = {"api_url": server.url, "sandbox_url": f"http://{NAME}:80", "proxy": bad}
        blocked = Sandbox.connect(sandbox.sandbox_id, transport="grpc", **reached)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgumentException, match="proxies") as caught:
            blocked.commands.run("true")
        assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("shown", ["wrong:sesame@", ""], ids=["wrong password", "no password"])
def test_a_proxy_that_refuses(
    url: str, transport: str, server: LocalServer, strict_proxy: RunningProxy, shown: str
) -> None:
    """G23: one kind of error wherever it refuses, and nothing may have been executed."""
    refused = f"http://{shown}127.0.0.1:{strict_proxy.port}"
    with pytest.raises(ConnectionException, match=r"proxy.*407") as caught:
        Sandbox.create(proxy=refused)
    assert not caught.value.maybe_executed
    assert "sesame" not in str(caught.value)
    with Sandbox.create(proxy=strict_proxy.url) as sandbox:
        blocked = Sandbox.connect(sandbox.sandbox_id, proxy=refused, api_url=server.url)
        for name in PATHS:
            with pytest.raises(SandboxException, match="407") as caught_inside:
                tour.ENTRIES[name](blocked)
            assert not caught_inside.value.maybe_executed, name
            assert "sesame" not in str(caught_inside.value)


def test_a_proxy_that_is_not_there(
    url: str, transport: str, server: LocalServer, proxy: RunningProxy, dead_proxy: str
) -> None:
    """G23: the error says that it is the proxy, wherever the call was to go."""
    with pytest.raises(ConnectionException, match=r"proxy.*refused") as caught:
        Sandbox.create(proxy=dead_proxy)
    assert not caught.value.maybe_executed
    assert "sesame" not in str(caught.value)
    with Sandbox.create(proxy=proxy.url) as sandbox:
        blocked = Sandbox.connect(sandbox.sandbox_id, proxy=dead_proxy, api_url=server.url)
        for name in PATHS:
            with pytest.raises(SandboxException, match=r"[Rr]efused") as caught_inside:
                tour.ENTRIES[name](blocked)
            assert not caught_inside.value.maybe_executed, name
            assert "sesame" not in str(caught_inside.value)


@pytest.mark.parametrize("rule", ["other.test, {authority},x", " .TEST"])
def test_no_proxy_leads_past_the_proxy(
    url: str,
    transport: str,
    server: LocalServer,
    proxy: RunningProxy,
    monkeypatch: pytest.MonkeyPatch,
    rule: str,
) -> None:
    """G23: the same forms on every path. Past the proxy there is no such name."""
    with Sandbox.create(proxy=proxy.url) as sandbox:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", rule.format(authority=url.partition("//")[2]))
        before = len(proxy.asked())
        with pytest.raises(ConnectionException, match=NO_SUCH_NAME):
            len(Sandbox.list())
        direct = Sandbox.connect(sandbox.sandbox_id, api_url=server.url)
        for name in PATHS:
            with pytest.raises(SandboxException, match=NO_SUCH_NAME):
                tour.ENTRIES[name](direct)
        assert len(proxy.asked()) == before


@pytest.mark.parametrize("rule", ["other.test, box.test,", "{authority}0"])
def test_no_proxy_for_others_changes_nothing(
    url: str, transport: str, proxy: RunningProxy, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    """G23."""
    monkeypatch.setenv("ALL_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", rule.format(authority=url.partition("//")[2]))
    with Sandbox.create() as sandbox:
        sandbox.files.write("a.txt", "text")
        assert sandbox.commands.run("cat a.txt").stdout == "text"


@pytest.fixture(scope="module")
def own_address() -> str:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError as error:
            pytest.skip(f"this machine has no address but loopback: {error}")
        return str(probe.getsockname()[0])


def test_no_proxy_names_addresses_and_networks(
    own_address: str, transport: str, dead_proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G23: with a proxy that is not there, what works went past it."""
    monkeypatch.setenv("HTTP_PROXY", dead_proxy)
    with LocalServer(host=own_address) as server:
        network = f"{own_address.rsplit('.', 1)[0]}.0/24"
        options = {"api_url": server.url, "sandbox_url": server.url, "api_key": server.api_key}
        for rule in (own_address, f"x,{own_address}:{port_of(server)}", network, "*"):
            monkeypatch.setenv("NO_PROXY", rule)
            tour.take(**options)
        for rule in ("", f"{own_address}:1", "198.51.100.0/24"):
            monkeypatch.setenv("NO_PROXY", rule)
            with pytest.raises(ConnectionException, match="proxy"):
                Sandbox.create(**options)  # type: ignore[arg-type]


def test_a_visitor_of_a_web_page_cannot_name_the_proxy(
    server: LocalServer, transport: str, proxy: RunningProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G23: in CGI scripts HTTP_PROXY is what a visitor sent as the header "Proxy"."""
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("REQUEST_METHOD", "GET")
    url = f"http://{NAME}:{port_of(server)}"
    before = len(proxy.asked())
    with pytest.raises(ConnectionException, match=NO_SUCH_NAME):
        Sandbox.create(api_url=url, sandbox_url=url)
    with Sandbox.create() as sandbox:
        direct = Sandbox.connect(sandbox.sandbox_id, sandbox_url=url)
        with pytest.raises(SandboxException, match=NO_SUCH_NAME):
            direct.commands.run("true")
    assert len(proxy.asked()) == before


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machines_server_is_never_reached_through_a_proxy(
    server: LocalServer, transport: str, dead_proxy: str, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """G51, G40: with every variable leading to a proxy that is not there, and with the option too."""
    for name in (*VARIABLES[:3], *(name.lower() for name in VARIABLES[:3]), "grpc_proxy"):
        monkeypatch.setenv(name, dead_proxy)
    url = f"http://{host}:{port_of(server)}"
    tour.take(api_url=url, sandbox_url=url)
    tour.take(api_url=url, sandbox_url=url, proxy=dead_proxy)
