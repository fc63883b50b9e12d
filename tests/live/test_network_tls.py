"""Real sandboxes behind a private certificate authority, and behind one that asks for certificates itself."""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from sandbox_local import LocalServer
from sandbox_sync import InvalidArgumentException, Sandbox, SandboxException, TLSException
from tests.live import tour
from tests.live.tls_front import a_front

VARIABLES = ["SANDBOX_SYNC_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SANDBOX_SYNC_CLIENT_CERT"]


@dataclass(frozen=True)
class Files:
    """Certificates as files. `other` is an authority that nobody here believes."""

    bundle: str
    other: str
    certificate: str
    key: str
    both: str
    others_both: str
    locked_key: str


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Files:
    directory = tmp_path_factory.mktemp("certificates")

    def write(name: str, content: bytes) -> str:
        path = directory / name
        path.write_bytes(content)
        return str(path)

    other = trustme.CA()
    mine, others = authority.issue_cert("me@example.org"), other.issue_cert("me@example.org")
    key = load_pem_private_key(mine.private_key_pem.bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"sesame"))
    return Files(
        bundle=write("bundle.pem", authority.cert_pem.bytes()),
        other=write("other.pem", other.cert_pem.bytes()),
        certificate=write("certificate.pem", mine.cert_chain_pems[0].bytes()),
        key=write("key.pem", mine.private_key_pem.bytes()),
        both=write("both.pem", mine.private_key_and_cert_chain_pem.bytes()),
        others_both=write("others-both.pem", others.private_key_and_cert_chain_pem.bytes()),
        locked_key=write("locked.pem", locked),
    )


def front(server: LocalServer, authority: trustme.CA, *, ask: bool = False, tls12: bool = False) -> Any:
    """Encryption before the server; `ask` for the certificates of clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost", "*.localhost").configure_cert(context)
    if ask:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
    if tls12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return a_front(context, int(server.url.rpartition(":")[2]))


@pytest.fixture(scope="module")
def url(server: LocalServer, authority: trustme.CA) -> Iterator[str]:
    with front(server, authority) as port:
        yield f"https://127.0.0.1:{port}"


@pytest.fixture(scope="module", params=["TLS 1.3", "TLS 1.2"])
def asking_url(request: pytest.FixtureRequest, server: LocalServer, authority: trustme.CA) -> Iterator[str]:
    """What asks for a certificate; in TLS 1.3 it refuses only after the client's handshake is done."""
    with front(server, authority, ask=True, tls12=request.param == "TLS 1.2") as port:
        yield f"https://127.0.0.1:{port}"


@pytest.fixture(autouse=True)
def _no_settings(server_env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


CLASS_LEVEL: dict[str, Callable[..., object]] = {
    "create": lambda sandbox_id, **options: Sandbox.create(**options),
    "list": lambda sandbox_id, **options: len(Sandbox.list(**options)),
    "info": Sandbox.get_info,
    "connect": Sandbox.connect,
    "set timeout": lambda sandbox_id, **options: Sandbox.set_timeout(sandbox_id, 60, **options),
    "kill": Sandbox.kill,
}


def every_entry_fails(url: str, kind: type[SandboxException], **options: Any) -> None:
    """Each of them, with one class of error, before anything is done."""
    with Sandbox.create(timeout=120) as sandbox:
        sandbox.files.write("a.txt", "text")
        for name, act in CLASS_LEVEL.items():
            with pytest.raises(kind) as caught:
                act(sandbox.sandbox_id, api_url=url, sandbox_url=url, **options)
            assert not caught.value.maybe_executed, name
        # The control plane can be reached, so that only what is inside of the sandbox cannot.
        blocked = Sandbox.connect(sandbox.sandbox_id, sandbox_url=url, **options)
        for name, go in tour.ENTRIES.items():
            with pytest.raises(kind) as caught:
                go(blocked)
            assert not caught.value.maybe_executed, name
        assert sandbox.is_running()


def test_everything_works_behind_a_private_authority(url: str, transport: str, files: Files) -> None:
    """G24: one option for REST, files, Connect and gRPC."""
    tour.take(api_url=url, sandbox_url=url, ca_bundle=files.bundle)


def test_without_it_every_entry_fails_alike(url: str, transport: str, files: Files) -> None:
    """G24: with one class of error, which says what to do."""
    every_entry_fails(url, TLSException)
    every_entry_fails(url, TLSException, ca_bundle=files.other)
    with pytest.raises(TLSException, match="SANDBOX_SYNC_CA_BUNDLE"):
        Sandbox.create(api_url=url)


@pytest.mark.parametrize("variable", VARIABLES[:3])
def test_the_environment_names_the_authority(
    url: str, transport: str, files: Files, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """G24, G50."""
    monkeypatch.setenv(variable, files.bundle)
    tour.take(api_url=url, sandbox_url=url)


def test_the_nearest_setting_counts(
    url: str, transport: str, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G50: option over our own variable over those of others over the default."""
    options = {"api_url": url, "sandbox_url": url}

    def works(**more: str) -> bool:
        try:
            with Sandbox.create(**options, **more) as sandbox:  # type: ignore[arg-type]
                return sandbox.commands.run("echo hello").stdout == "hello\n"
        except TLSException:
            return False

    assert not works()
    for near, far in [
        ("SANDBOX_SYNC_CA_BUNDLE", "REQUESTS_CA_BUNDLE"),
        ("SANDBOX_SYNC_CA_BUNDLE", "SSL_CERT_FILE"),
        ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"),
    ]:
        with monkeypatch.context() as patch:
            patch.setenv(near, files.bundle)
            patch.setenv(far, files.other)
            assert works(), (near, far)
            assert not works(ca_bundle=files.other)
            patch.setenv(near, files.other)
            patch.setenv(far, files.bundle)
            assert not works(), (near, far)
            assert works(ca_bundle=files.bundle)


@pytest.mark.parametrize("in_one_file", [True, False])
def test_everything_works_with_a_client_certificate(
    asking_url: str, transport: str, files: Files, in_one_file: bool
) -> None:
    """G24: it is shown on every path."""
    shown = files.both if in_one_file else (files.certificate, files.key)
    tour.take(api_url=asking_url, sandbox_url=asking_url, ca_bundle=files.bundle, client_cert=shown)


@pytest.mark.parametrize("wrong", [False, True], ids=["missing", "wrong"])
def test_a_client_certificate_that_is_refused_fails_every_entry_alike(
    asking_url: str, transport: str, files: Files, wrong: bool
) -> None:
    """G24: also where the server says so only after the handshake; nothing has been done then."""
    options = {"client_cert": files.others_both} if wrong else {}
    every_entry_fails(asking_url, TLSException, ca_bundle=files.bundle, **options)


def test_a_key_with_a_password_is_refused_and_not_asked_about(
    asking_url: str, transport: str, files: Files
) -> None:
    """G24: OpenSSL would ask on the terminal, and hang."""
    shown = (files.certificate, files.locked_key)
    every_entry_fails(asking_url, InvalidArgumentException, ca_bundle=files.bundle, client_cert=shown)
    with pytest.raises(InvalidArgumentException, match=r"locked\.pem.*password.*openssl pkey"):
        Sandbox.create(api_url=asking_url, ca_bundle=files.bundle, client_cert=shown)


def test_links_to_files_lead_through_the_encryption(url: str, transport: str, files: Files) -> None:
    """Also on this machine, where sandboxes have names under .localhost."""
    with Sandbox.create(api_url=url, sandbox_url=url, ca_bundle=files.bundle) as sandbox:
        sandbox.files.write("a.txt", "text")
        context = ssl.create_default_context(cafile=files.bundle)
        link = sandbox.download_url("a.txt")
        with urllib.request.urlopen(link, context=context, timeout=20) as answer:
            assert answer.read() == b"text"
