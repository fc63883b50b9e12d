"""Certificates and proxies, which mean the same on every way to the service."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import trustme
from sandbox_sync_rest.api.envd import get_files, post_files
from sandbox_sync_rest.api.sandboxes import get_v2_sandboxes
from sandbox_sync_rpc import process_pb2 as pb

from sandbox_sync import errors
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.transport.envd import EnvdConnection
from sandbox_sync.transport.files import octets
from sandbox_sync.transport.rest import ControlPlane
from tests.unit.grpc_server import serving
from tests.unit.wire_server import (
    END,
    STREAM_HEAD,
    Peer,
    Received,
    WireServer,
    answering,
    chunk,
    frame,
    scripted,
)

PROXY_VARIABLES = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"]
CA_VARIABLES = ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SANDBOX_SYNC_CA_BUNDLE", "CURL_CA_BUNDLE"]
NAME = "sandbox.test"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        *PROXY_VARIABLES,
        *(name.lower() for name in PROXY_VARIABLES),
        *CA_VARIABLES,
        "REQUEST_METHOD",
    ]:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def bundle(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def context_of(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("127.0.0.1", "localhost", NAME))).configure_cert(context)
    return context


def service(peer: Peer, request: Received) -> None:
    """A control plane and a sandbox in one."""
    if request.target.endswith("/List"):
        peer.answer(200, content_type="application/proto")
    elif request.target.endswith("/Start"):
        peer.send(STREAM_HEAD + chunk(frame(b"")) + chunk(END) + b"0\r\n\r\n")
    elif request.target.startswith("/files") and request.method == "GET":
        peer.answer(200, b"content")
    else:
        peer.answer(200, b"[]")


WAYS: dict[str, Callable[[ConnectionConfig], object]] = {
    "control plane": lambda config: ControlPlane(config).within().send(get_v2_sandboxes.build()),
    "unary": lambda config: (envd := EnvdConnection(config, "i1")).unary(envd.process.List, pb.ListRequest()),
    "stream": lambda config: list(
        (envd := EnvdConnection(config, "i1")).stream(envd.process.Start, pb.StartRequest())
    ),
    "download": lambda config: EnvdConnection(config, "i1").download(get_files.build(path="/a")).read(),
    "upload": lambda config: EnvdConnection(config, "i1").upload(post_files.build(path="/a"), octets(b"x")),
    "health": lambda config: EnvdConnection(config, "i1").is_healthy(),
}
every_way = pytest.mark.parametrize("go", WAYS.values(), ids=WAYS.keys())


def config_for(url: str, **options: object) -> ConnectionConfig:
    settings = {"api_key": "k", "api_url": url, "sandbox_url": url, "request_timeout": 10, **options}
    return ConnectionConfig.resolve(**settings)  # type: ignore[arg-type]


@every_way
def test_a_private_authority_is_trusted_when_it_is_given(
    go: Callable[[ConnectionConfig], object], authority: trustme.CA, bundle: str
) -> None:
    """G24: one bundle for every entry point; without it all fail with one class."""
    with answering(service, context=context_of(authority)) as server:
        url = f"https://127.0.0.1:{server.port}"
        go(config_for(url, ca_bundle=bundle))
        go(config_for(f"https://localhost:{server.port}", ca_bundle=bundle))
        with pytest.raises(errors.TLSException, match="SANDBOX_SYNC_CA_BUNDLE") as caught:
            go(config_for(url))
        assert not caught.value.maybe_executed


@every_way
def test_a_certificate_for_another_name_is_refused(
    go: Callable[[ConnectionConfig], object], authority: trustme.CA, bundle: str
) -> None:
    with answering(service, context=context_of(authority, "other.test")) as server:
        with pytest.raises(errors.TLSException):
            go(config_for(f"https://127.0.0.1:{server.port}", ca_bundle=bundle))
        assert server.requests == []


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SANDBOX_SYNC_CA_BUNDLE"])
def test_the_environment_names_an_authority(
    monkeypatch: pytest.MonkeyPatch, authority: trustme.CA, bundle: str, variable: str
) -> None:
    monkeypatch.setenv(variable, bundle)
    with answering(service, context=context_of(authority)) as server:
        WAYS["control plane"](config_for(f"https://127.0.0.1:{server.port}"))


def test_the_nearest_setting_counts(
    monkeypatch: pytest.MonkeyPatch, authority: trustme.CA, bundle: str, tmp_path: Path
) -> None:
    """G50: argument over our variable over the variables of others."""
    wrong = tmp_path / "wrong.pem"
    trustme.CA().cert_pem.write_to_path(wrong)
    with answering(service, context=context_of(authority)) as server:
        url = f"https://127.0.0.1:{server.port}"
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(wrong))
        monkeypatch.setenv("SSL_CERT_FILE", str(wrong))
        monkeypatch.setenv("SANDBOX_SYNC_CA_BUNDLE", bundle)
        WAYS["control plane"](config_for(url))
        monkeypatch.setenv("SANDBOX_SYNC_CA_BUNDLE", str(wrong))
        WAYS["control plane"](config_for(url, ca_bundle=bundle))
        with pytest.raises(errors.TLSException):
            WAYS["control plane"](config_for(url))


@pytest.mark.parametrize("one_file", [True, False])
def test_a_client_certificate_is_shown(
    authority: trustme.CA, bundle: str, tmp_path: Path, one_file: bool
) -> None:
    context = context_of(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    client = authority.issue_cert("client@example.org")
    key, certificate, both = tmp_path / "key", tmp_path / "cert", tmp_path / "both"
    client.private_key_pem.write_to_path(key)
    client.cert_chain_pems[0].write_to_path(certificate)
    client.private_key_and_cert_chain_pem.write_to_path(both)
    with answering(service, context=context) as server:
        url = f"https://127.0.0.1:{server.port}"
        shown = str(both) if one_file else (str(certificate), str(key))
        WAYS["unary"](config_for(url, ca_bundle=bundle, client_cert=shown))
        with pytest.raises(errors.SandboxException):
            WAYS["unary"](config_for(url, ca_bundle=bundle))


@pytest.mark.parametrize("option", ["ca_bundle", "client_cert"])
@pytest.mark.parametrize("content", [None, b"", b"not a certificate"])
@pytest.mark.parametrize("transport", ["connect", "grpc"])
def test_a_certificate_file_that_is_none_is_named(
    tmp_path: Path, option: str, content: bytes | None, transport: str
) -> None:
    path = tmp_path / "bad.pem"
    if content is not None:
        path.write_bytes(content)
    config = config_for("https://127.0.0.1:1", transport=transport, **{option: str(path)})
    with pytest.raises(errors.InvalidArgumentException, match=r"bad\.pem"):
        WAYS["unary"](config)


def test_grpc_trusts_the_same_authority(authority: trustme.CA, bundle: str) -> None:
    """G24."""
    certificate = authority.issue_cert("127.0.0.1")
    credentials = grpc.ssl_server_credentials(
        [(certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes())]
    )
    with serving({"List": lambda request, context: pb.ListResponse()}, credentials) as url:
        WAYS["unary"](config_for(url, ca_bundle=bundle, transport="grpc"))
        with pytest.raises(errors.TLSException, match="SANDBOX_SYNC_CA_BUNDLE"):
            WAYS["unary"](config_for(url, transport="grpc"))


def test_a_stream_over_tls_is_cancelled_at_once(authority: trustme.CA, bundle: str) -> None:
    def respond(peer: Peer, request: Received) -> None:
        peer.send(STREAM_HEAD + chunk(frame(b"")))
        peer.wait_for_end()

    with answering(respond, context=context_of(authority)) as server:
        envd = EnvdConnection(config_for(f"https://127.0.0.1:{server.port}", ca_bundle=bundle), "i1")
        stream = envd.stream(envd.process.Start, pb.StartRequest(), timeout=0)
        next(stream)
        timer = threading.Timer(0.2, stream.cancel)
        timer.start()
        assert list(stream) == []
        timer.join()
        assert server.ended.acquire(timeout=5)


def dripping(peer: Peer) -> None:
    peer.receive()
    for byte in b"HTTP/1.1 200 OK" + b"!" * 85:
        peer.send(bytes([byte]))
        threading.Event().wait(0.05)


def test_a_deadline_holds_over_tls(authority: trustme.CA, bundle: str) -> None:
    """G4: in the handshake, which is not answered, and in an answer that drips."""
    never = scripted(lambda peer: peer.wait_for_end())
    for serve in (never, scripted(dripping, context=context_of(authority))):
        with serve as server:
            config = config_for(f"https://127.0.0.1:{server.port}", ca_bundle=bundle, request_timeout=0.5)
            begin = time.monotonic()
            with pytest.raises(errors.RequestTimeoutException):
                WAYS["control plane"](config)
            assert 0.5 <= time.monotonic() - begin < 1.0


# Proxies


class Proxy:
    """A forward proxy that takes every host to one server, and keeps what it was asked for."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.asked: list[Received] = []
        self._target = target

    def __call__(self, peer: Peer) -> None:
        request = peer.receive()
        if request is None:
            return
        self.asked.append(request)
        upstream = socket.create_connection(self._target)
        if request.method == "CONNECT":
            peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            path = "/" + request.target.split("/", 3)[3]
            head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
            upstream.sendall(f"{request.method} {path} HTTP/1.1\r\n{head}\r\n".encode() + request.body)
        back = threading.Thread(target=pump, args=(upstream, peer.sock), daemon=True)
        back.start()
        pump(peer.sock, upstream)
        back.join(10)
        upstream.close()


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def proxied(server: WireServer) -> Iterator[tuple[str, Proxy]]:
    proxy = Proxy(("127.0.0.1", server.port))
    with scripted(proxy) as listener:
        yield f"http://user:pass@127.0.0.1:{listener.port}", proxy


@every_way
def test_plain_requests_go_through_a_proxy(go: Callable[[ConnectionConfig], object]) -> None:
    """G23."""
    with answering(service) as server, proxied(server) as (proxy_url, proxy):
        go(config_for(f"http://{NAME}:8080", proxy=proxy_url))
        assert proxy.asked[0].target.startswith(f"http://{NAME}:8080/")
        assert proxy.asked[0].headers["host"] == f"{NAME}:8080"
        assert proxy.asked[0].headers["proxy-authorization"] == "Basic dXNlcjpwYXNz"


@every_way
def test_secure_requests_go_through_a_tunnel(
    go: Callable[[ConnectionConfig], object], authority: trustme.CA, bundle: str
) -> None:
    """G23, G24: with the certificate of the server, and nothing shown to the proxy."""
    with answering(service, context=context_of(authority)) as server, proxied(server) as (proxy_url, proxy):
        go(config_for(f"https://{NAME}", proxy=proxy_url, ca_bundle=bundle))
        (asked,) = proxy.asked
        assert (asked.method, asked.target) == ("CONNECT", f"{NAME}:443")
        assert asked.headers["proxy-authorization"] == "Basic dXNlcjpwYXNz"
        assert "x-api-key" not in asked.headers
        assert "proxy-authorization" not in server.requests[0].headers


def test_grpc_goes_through_the_same_proxy() -> None:
    """G23, G40."""
    with serving({"List": lambda request, context: pb.ListResponse()}) as url:
        proxy = Proxy(("127.0.0.1", int(url.rpartition(":")[2])))
        with scripted(proxy) as listener:
            proxy_url = f"http://user:pass@127.0.0.1:{listener.port}"
            WAYS["unary"](config_for(f"http://{NAME}:8080", proxy=proxy_url, transport="grpc"))
        assert [(asked.method, asked.target) for asked in proxy.asked] == [("CONNECT", f"{NAME}:8080")]


def test_a_deadline_holds_through_a_proxy(authority: trustme.CA, bundle: str) -> None:
    """G4: in the answer that comes through the proxy."""
    for context, url in ((None, f"http://{NAME}"), (context_of(authority), f"https://{NAME}")):
        with (
            scripted(dripping, context=context) as server,
            proxied(server) as (proxy_url, _),
        ):
            begin = time.monotonic()
            with pytest.raises(errors.RequestTimeoutException):
                WAYS["control plane"](config_for(url, proxy=proxy_url, ca_bundle=bundle, request_timeout=0.5))
            assert 0.5 <= time.monotonic() - begin < 1.0


def test_a_stream_through_a_proxy_is_cancelled_at_once(authority: trustme.CA, bundle: str) -> None:
    def respond(peer: Peer, request: Received) -> None:
        peer.send(STREAM_HEAD + chunk(frame(b"")))
        peer.wait_for_end()

    for context, url in ((None, f"http://{NAME}"), (context_of(authority), f"https://{NAME}")):
        with answering(respond, context=context) as server, proxied(server) as (proxy_url, _):
            envd = EnvdConnection(config_for(url, proxy=proxy_url, ca_bundle=bundle), "i1")
            stream = envd.stream(envd.process.Start, pb.StartRequest(), timeout=0)
            next(stream)
            timer = threading.Timer(0.2, stream.cancel)
            timer.start()
            assert list(stream) == []
            timer.join()


def test_a_deadline_holds_while_a_proxy_is_asked() -> None:
    """G4: it drips its answer to CONNECT."""
    with scripted(dripping) as listener:
        begin = time.monotonic()
        with pytest.raises(errors.RequestTimeoutException) as caught:
            WAYS["control plane"](
                config_for(f"https://{NAME}", proxy=f"http://127.0.0.1:{listener.port}", request_timeout=0.5)
            )
        assert 0.5 <= time.monotonic() - begin < 1.0
        assert not caught.value.maybe_executed


@pytest.mark.parametrize("answer", [b"HTTP/1.1 407 Who are you\r\n\r\n", b"", b"garbage\r\n\r\n"])
def test_a_proxy_that_refuses_is_an_error_before_anything_was_sent(answer: bytes) -> None:
    def refuse(peer: Peer) -> None:
        peer.receive()
        peer.send(answer)

    with scripted(refuse) as listener, pytest.raises(errors.ConnectionException) as caught:
        WAYS["control plane"](
            config_for("https://api.test", proxy=f"http://user:secret@127.0.0.1:{listener.port}")
        )
    assert "secret" not in str(caught.value)
    assert not caught.value.maybe_executed


def test_a_proxy_that_is_not_there_is_said_to_be_the_trouble() -> None:
    with pytest.raises(errors.ConnectionException, match="proxy"):
        WAYS["control plane"](config_for("http://api.test", proxy="http://127.0.0.1:1"))


@every_way
def test_this_machine_is_never_reached_through_a_proxy(
    go: Callable[[ConnectionConfig], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """G51: HTTP(S)_PROXY leads nowhere and no NO_PROXY is set."""
    for name in PROXY_VARIABLES[:3]:
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with answering(service) as server:
        go(config_for(server.url))
        go(config_for(f"http://localhost:{server.port}", proxy="http://127.0.0.1:1"))


def test_grpc_does_not_reach_this_machine_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """G51."""
    for name in [*PROXY_VARIABLES[:3], "grpc_proxy"]:
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:1")
    with serving({"List": lambda request, context: pb.ListResponse()}) as url:
        WAYS["unary"](config_for(url, transport="grpc"))
