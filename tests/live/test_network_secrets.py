"""Keys, tokens, passwords and the caller's own headers: in no error, log or repr, whatever goes wrong."""

from __future__ import annotations

import json
import logging
import pickle
import socket
import ssl
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import grpc
import pytest
import trustme
from sandbox_sync_rest.api.envd import get_files, post_files
from sandbox_sync_rest.api.sandboxes import get_v2_sandboxes, post_v2_sandboxes
from sandbox_sync_rest.models.new_sandbox_v2 import NewSandboxV2
from sandbox_sync_rpc import filesystem_pb2 as fs
from sandbox_sync_rpc import process_pb2 as pb

from sandbox_local import LocalServer
from sandbox_sync import Sandbox, SandboxException
from sandbox_sync.config import ConnectionConfig
from sandbox_sync.transport.envd import EnvdConnection
from sandbox_sync.transport.files import octets
from sandbox_sync.transport.rest import ControlPlane
from tests.raw_client import RawClient
from tests.unit.grpc_server import serving
from tests.unit.wire_server import Peer, Received, answering, scripted

KEY = "e2b_0123s3cr3tkey"
TOKEN = "s3cr3ttoken4567"
HEADERS = {"X-Gateway": "s3cr3theader89", "Authorization": "Bearer s3cr3tbearer1"}
API_HEADERS = {"X-Other": "s3cr3tother23"}
PASSWORD = "s3cr3tpass%45x"
PROXY_USER = f"me:{PASSWORD}@"

FRAGMENTS = ("s3cr3t", "bWU6czNjcjN0")
"""What is in every one of them, the second in base64 with the user's name before it."""


class Surroundings(NamedTuple):
    """Where calls go, and through what."""

    url: str
    options: dict[str, Any]


def _port_of_nobody() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def quote(status: int) -> Callable[[Peer, Received], None]:
    """Say all that was sent, as servers under development do."""

    def answer(peer: Peer, request: Received) -> None:
        said = {"code": status, "message": f"{request.method} {request.target} {request.headers}"}
        peer.answer(status, json.dumps(said).encode(), content_type="application/json")

    return answer


@contextmanager
def http(script: Callable[[Peer, Received], None]) -> Iterator[Surroundings]:
    with answering(script) as server:
        yield Surroundings(server.url, {})


@contextmanager
def raw(script: Callable[[Peer], object], context: ssl.SSLContext | None = None) -> Iterator[Surroundings]:
    with scripted(script, context=context) as server:
        yield Surroundings(server.url.replace("http:", "https:") if context else server.url, {})


@contextmanager
def proxied(script: Callable[[Peer, Received], None], url: str) -> Iterator[Surroundings]:
    with answering(script) as server:
        yield Surroundings(url, {"proxy": f"http://{PROXY_USER}127.0.0.1:{server.port}"})


@contextmanager
def grpc_quoting() -> Iterator[Surroundings]:
    def refuse(request: Any, context: Any) -> Any:
        context.abort(grpc.StatusCode.UNAUTHENTICATED, str(context.invocation_metadata()))

    with serving(dict.fromkeys(("List", "Start", "Stat"), refuse)) as url:
        yield Surroundings(url, {})


def untrusted() -> AbstractContextManager[Surroundings]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return raw(Peer.wait_for_end, context)


def nowhere(url: str, **options: Any) -> AbstractContextManager[Surroundings]:
    return nullcontext(Surroundings(url, options))


TROUBLES: dict[str, Callable[[], AbstractContextManager[Surroundings]]] = {
    "401": lambda: http(quote(401)),
    "500": lambda: http(quote(500)),
    "502": lambda: http(quote(502)),
    "gRPC's 401": grpc_quoting,
    "refused": lambda: nowhere(f"http://127.0.0.1:{_port_of_nobody()}"),
    "reset": lambda: raw(Peer.reset),
    "garbage": lambda: raw(lambda peer: peer.send(b"HTTP/1.1 2x\r\n\r\n")),
    "silence": lambda: raw(Peer.wait_for_end),
    "untrusted": untrusted,
    "a proxy that refuses": lambda: proxied(quote(407), "https://sandbox.test"),
    "a proxy that refuses plain requests": lambda: proxied(quote(407), "http://sandbox.test"),
    "a proxy that fails": lambda: proxied(quote(503), "http://sandbox.test"),
    "a proxy that is not there": lambda: nowhere(
        "https://sandbox.test", proxy=f"http://{PROXY_USER}127.0.0.1:{_port_of_nobody()}"
    ),
    "a proxy of another kind": lambda: nowhere("https://sandbox.test", proxy=f"socks5://{PROXY_USER}p:1"),
    "a proxy that is none": lambda: nowhere("https://sandbox.test", proxy=f"http://{PROXY_USER}p:port"),
    "a URL with a password": lambda: nowhere(f"https://{PROXY_USER}sandbox.test"),
    "a URL that is none": lambda: nowhere(f"http://{PROXY_USER}[sandbox"),
    "a name that is none": lambda: nowhere("http://no-such-name.invalid"),
    "a header that cannot be": lambda: nowhere("http://127.0.0.1:1", headers={"X": "s3cr3t\r\nheader"}),
    "a header that is no text": lambda: nowhere("http://127.0.0.1:1", headers={"X": b"s3cr3tbytes"}),
    "a key that cannot be": lambda: nowhere("http://127.0.0.1:1", api_key="s3cr3t\u20ackey"),
}

CALLS: dict[str, Callable[[ConnectionConfig], object]] = {
    "list": lambda config: ControlPlane(config).within().send(get_v2_sandboxes.build()),
    "create": lambda config: post_v2_sandboxes.call(
        ControlPlane(config).within(), body=NewSandboxV2(template_id="base")
    ),
    "unary": lambda config: envd(config).unary(envd(config).process.List, pb.ListRequest(), user="root"),
    "stat": lambda config: envd(config).unary(envd(config).filesystem.Stat, fs.StatRequest(path="/")),
    "stream": lambda config: list(envd(config).stream(envd(config).process.Start, pb.StartRequest())),
    "download": lambda config: envd(config).download(get_files.build(path="/a")).read(),
    "upload": lambda config: envd(config).upload(post_files.build(path="/a"), octets(b"x")),
    "health": lambda config: envd(config).is_healthy(),
}


def envd(config: ConnectionConfig) -> EnvdConnection:
    return EnvdConnection(config, "i1", access_token=TOKEN)


def require_none(text: str, where: str) -> None:
    for secret in FRAGMENTS:
        at = text.find(secret)
        assert at < 0, f"{where}: ...{text[max(0, at - 200) : at + 100]}"


@pytest.mark.parametrize("transport", ["connect", "grpc"])
@pytest.mark.parametrize("trouble", TROUBLES)
def test_nothing_secret_is_said_when_a_call_fails(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], trouble: str, transport: str
) -> None:
    """Neither in errors, their tracebacks and pickles, nor in anybody's logs at DEBUG, nor in output."""
    caplog.set_level(logging.DEBUG)
    for name in ("sandbox_sync", "urllib3", "requests", "grpc", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    failed = []
    with TROUBLES[trouble]() as (url, options):
        for name, go in CALLS.items():
            try:
                settings: dict[str, Any] = {
                    "api_key": KEY,
                    "api_url": url,
                    "sandbox_url": url,
                    "headers": HEADERS,
                    "api_headers": API_HEADERS,
                    "request_timeout": 0.4,
                    "transport": transport,
                }
                config = ConnectionConfig.resolve(**{**settings, **options})
                require_none(repr(config), "the configuration")
                go(config)
            except SandboxException as error:
                failed.append(name)
                where = f"{trouble}, {name}"
                require_none(f"{error} {error!r} {vars(error)}", where)
                require_none(traceback.format_exc(), f"{where}, traceback")
                require_none(pickle.dumps(error).decode("latin-1"), f"{where}, pickle")
    assert failed, "nothing went wrong"
    for record in caplog.records:
        require_none(f"{record.getMessage()} {record.args} {record.exc_text}", f"log of {record.name}")
    captured = capfd.readouterr()
    require_none(captured.out + captured.err, "output")


def test_nothing_secret_is_shown_of_what_works(
    server: LocalServer, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Sandboxes, handles and configurations, their reprs, what is logged of them, and what pickle says."""
    caplog.set_level(logging.DEBUG)
    options: dict[str, Any] = {"api_url": server.url, "sandbox_url": server.url, "api_key": server.api_key}
    with Sandbox.create(headers=HEADERS, api_headers=API_HEADERS, **options) as sandbox:
        token = RawClient.of(server).ask("GET", f"/sandboxes/{sandbox.sandbox_id}").json()["envdAccessToken"]
        with (
            sandbox.commands.run("sleep 60", background=True) as command,
            sandbox.files.watch_dir("/tmp") as watch,
        ):
            shown = [
                sandbox,
                sandbox.files,
                sandbox.commands,
                sandbox.pty,
                command,
                watch,
                sandbox.get_info(),
            ]
            shown += [sandbox.files.read("/etc/passwd", format="stream"), Sandbox.list(**options)]
            for one in shown:
                text = repr(one)
                require_none(text, type(one).__name__)
                assert server.api_key not in text
                assert token not in text
                try:
                    text = pickle.dumps(one).decode("latin-1")
                except Exception:  # noqa: BLE001 - whatever pickle has to say
                    text = traceback.format_exc()
                require_none(text, f"pickle of {type(one).__name__}")
                assert server.api_key not in text
                assert token not in text
    logged = "".join(f"{record.getMessage()} {record.args}" for record in caplog.records)
    assert "/v2/sandboxes" in logged
    require_none(logged, "logs")
    assert server.api_key not in logged
    assert token not in logged
