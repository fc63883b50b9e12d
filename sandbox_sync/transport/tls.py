"""Which certificates are trusted and shown, the same for every transport."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.util.ssl_ import create_urllib3_context

from sandbox_sync.errors import InvalidArgumentException
from sandbox_sync.transport.sockets import DeadlineSSLSocket

ClientCert = str | tuple[str, str] | None


def ca_file(ca_bundle: str | None) -> str:
    """The file with the trusted certificates.

    Args:
        ca_bundle: The configured one, which comes before REQUESTS_CA_BUNDLE, SSL_CERT_FILE and the default.
    """
    environment = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
    return ca_bundle or environment or DEFAULT_CA_BUNDLE_PATH


def client_files(client_cert: ClientCert) -> tuple[str, str] | None:
    """The files of the client certificate and of its key; they may be one and the same."""
    if client_cert is None:
        return None
    return (client_cert, client_cert) if isinstance(client_cert, str) else client_cert


def ssl_context(trusted: str, client_cert: ClientCert) -> ssl.SSLContext:
    """What HTTPS connections are made with.

    Args:
        trusted: File with the authorities to trust.
        client_cert: File or files with the certificate to show, if any.

    Raises:
        InvalidArgumentException: A file cannot be read, is no certificate, or its key wants a password.
    """
    context = create_urllib3_context()
    try:
        context.load_verify_locations(trusted)
    except OSError as error:
        raise _unusable(trusted, error) from error
    files = client_files(client_cert)
    if files is not None:
        try:
            context.load_cert_chain(*files, password=lambda: _refuse_locked(files[1]))
        except OSError as error:
            raise _unusable(files[0], error) from error
    context.set_alpn_protocols(["http/1.1"])
    context.sslsocket_class = DeadlineSSLSocket
    return context


def pem(path: str) -> bytes:
    """The content of a certificate file.

    Raises:
        InvalidArgumentException: It cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _unusable(path, error) from error


def _refuse_locked(path: str) -> str:
    # OpenSSL would ask for it on the terminal, and wait.
    raise InvalidArgumentException(
        f"The key in {path!r} is protected by a password, which cannot be given here. Write a copy without "
        "one, that only this user can read: openssl pkey -in KEY -out COPY"
    )


def _unusable(path: str, error: OSError) -> InvalidArgumentException:
    return InvalidArgumentException(f"Cannot use the certificate file {path!r}: {error}")
