"""Where the API is, who is calling, and how: options over environment over defaults."""

from __future__ import annotations

import logging
import os
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast
from urllib.parse import unquote, urlsplit

from sandbox_sync.ambient import by
from sandbox_sync.deadlines import Deadline, seconds
from sandbox_sync.errors import AuthenticationException, InvalidArgumentException

Transport = Literal["connect", "grpc"]

_LOGGER = logging.getLogger("sandbox_sync")

ENVD_PORT = 49983
"""The port of a sandbox on which its commands and files are reached."""

DEFAULT_DOMAIN = "e2b.app"
DEFAULT_REQUEST_TIMEOUT = 60.0
DEFAULT_RETRIES = 3
LOCAL_DOMAIN = "local"
"""The domain that stands for the embedded server on this machine."""

# What is shorter cannot be kept secret, and is part of too many words.
_SHORTEST_SECRET = 6

# These domains serve all sandboxes from one host and tell them apart by headers.
_SHARED_HOST_DOMAINS = frozenset(
    {
        "e2b.app",
        "e2b.dev",
        "e2b.pro",
        "e2b-staging.dev",
        "e2b-tango.dev",
        "e2b-juliett.dev",
        "foxtrot-2.e2b.dev",
    }
)


@dataclass(frozen=True)
class ConnectionConfig:
    """What every call needs to know; made by `resolve`.

    It pickles without its secrets: the API key, the extra headers, and a proxy that asks for a password.
    Where it is unpickled, key and proxy are the environment's, and the logger is the one of the same name.

    Attributes:
        api_key: Key of the account, if any.
        domain: Domain of the service.
        debug: Whether the service runs on this machine, on the ports that E2B's own developers use.
        request_timeout: Total seconds of one call; None for no limit.
        headers: Extra headers for the control plane.
        proxy: URL of the proxy for everything but this machine; None leaves it to the environment.
        api_url: Base URL of the control plane.
        sandbox_url: Base URL of all sandboxes, if they share one that does not follow from the domain.
        transport: How commands and files are reached: Connect over HTTP/1.1, or gRPC over HTTP/2.
        ca_bundle: File with the certificates to trust; None for the environment's or the default ones.
        client_cert: File with a client certificate and its key, or one file for each.
        retries: How often a call that failed is made again, where that does no harm and may help.
        logger: Where calls are logged; None for the logger "sandbox_sync".
    """

    domain: str
    api_url: str
    api_key: str | None = field(default=None, repr=False)
    debug: bool = False
    request_timeout: float | None = DEFAULT_REQUEST_TIMEOUT
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    proxy: str | None = field(default=None, repr=False)
    sandbox_url: str | None = None
    transport: Transport = "connect"
    ca_bundle: str | None = None
    client_cert: str | tuple[str, str] | None = None
    retries: int = DEFAULT_RETRIES
    logger: logging.Logger | None = field(default=None, repr=False)

    @classmethod
    def resolve(
        cls,
        *,
        api_key: str | None = None,
        domain: str | None = None,
        debug: bool | None = None,
        request_timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        api_url: str | None = None,
        sandbox_url: str | None = None,
        transport: str | None = None,
        ca_bundle: str | None = None,
        client_cert: str | tuple[str, str] | None = None,
        retries: int | None = None,
        logger: logging.Logger | None = None,
        api_headers: Mapping[str, str] | None = None,
    ) -> ConnectionConfig:
        """Fill in what the caller left out.

        Args:
            api_key: Key of the account; E2B_API_KEY.
            domain: Domain of the service; E2B_DOMAIN, else "e2b.app". "local": this machine's own server.
            debug: Use a service on this machine's developer ports; E2B_DEBUG ("true").
            request_timeout: Total seconds of one call, retries included; 0 for no limit; 60 when left out.
            headers: Extra headers for the control plane.
            proxy: URL of an HTTP proxy; HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY when left out.
            api_url: Base URL of the control plane; E2B_API_URL, else it follows from the domain.
            sandbox_url: Base URL of all sandboxes; E2B_SANDBOX_URL, else it follows from the domain.
            transport: "connect", "grpc", or "auto", which is "connect"; SANDBOX_SYNC_TRANSPORT.
            ca_bundle: File with the certificates to trust; SANDBOX_SYNC_CA_BUNDLE, REQUESTS_CA_BUNDLE or
                SSL_CERT_FILE.
            client_cert: File with a client certificate and its key, or one file for each;
                SANDBOX_SYNC_CLIENT_CERT.
            retries: How often a call that failed is made again, where that does no harm and may help; 3 when
                left out, 0 for never.
            logger: Where calls are logged; the logger "sandbox_sync" when left out.
            api_headers: `headers` under the name that newer programs use. Both may be given; a header that is
                in both has the value that it has here.

        Returns:
            The configuration.

        Raises:
            AuthenticationException: No API key was found.
            InvalidArgumentException: A value cannot be used.
        """
        given = {
            "api_key": api_key,
            "domain": domain,
            "proxy": proxy,
            "api_url": api_url,
            "sandbox_url": sandbox_url,
            "transport": transport,
            "ca_bundle": ca_bundle,
        }
        for name, value in given.items():
            if value is not None and not isinstance(value, str):
                raise InvalidArgumentException(f"{name} has to be a str; got {type(value).__name__}")
        if logger is not None and not isinstance(logger, logging.Logger):
            raise InvalidArgumentException(f"logger has to be a logging.Logger; got {type(logger).__name__}")
        if retries is not None and (type(retries) is not int or retries < 0):
            raise InvalidArgumentException(f"retries has to be a whole number, 0 or more; got {retries!r}")
        if not isinstance(debug, (bool, type(None))):
            raise InvalidArgumentException(f"debug has to be True or False; got {debug!r}")
        domain = _domain(domain or _environment("E2B_DOMAIN") or DEFAULT_DOMAIN)
        api_key = api_key or _environment("E2B_API_KEY")
        api_url = api_url or _environment("E2B_API_URL")
        sandbox_url = sandbox_url or _environment("E2B_SANDBOX_URL")
        if debug is None:
            debug = (_environment("E2B_DEBUG") or "").lower() == "true"
        if domain == LOCAL_DOMAIN and api_url is None:
            from sandbox_sync import local

            api_url, api_key = local.endpoint()
            sandbox_url = sandbox_url or api_url
        if api_key is None and not debug:
            raise _missing_key()
        api_url = api_url or ("http://localhost:3000" if debug else f"https://api.{domain}")
        if request_timeout is None:
            request_timeout = DEFAULT_REQUEST_TIMEOUT
        return cls(
            domain=domain,
            api_url=_base_url(api_url, "api_url"),
            api_key=api_key,
            debug=debug,
            request_timeout=seconds(request_timeout, "request_timeout"),
            headers={**_headers(headers, "headers"), **_headers(api_headers, "api_headers")},
            proxy=proxy or None,
            sandbox_url=sandbox_url and _base_url(sandbox_url, "sandbox_url"),
            transport=_transport(transport or _environment("SANDBOX_SYNC_TRANSPORT") or "auto"),
            ca_bundle=ca_bundle or _environment("SANDBOX_SYNC_CA_BUNDLE"),
            client_cert=_client_cert(client_cert) or _environment("SANDBOX_SYNC_CLIENT_CERT"),
            retries=DEFAULT_RETRIES if retries is None else retries,
            logger=logger,
        )

    @property
    def log(self) -> logging.Logger:
        """Where to log what happens to calls and sandboxes; `logger`, or the SDK's own."""
        return self.logger or _LOGGER

    def deadline(self, request_timeout: float | None = None) -> Deadline:
        """The deadline of a call that begins now; that of the block around it, if it comes first.

        Args:
            request_timeout: Its total seconds; 0 for no limit, None for the configured `request_timeout`.

        Raises:
            InvalidArgumentException: It is no such number.
        """
        if request_timeout is None:
            return by(self.request_timeout)
        return by(seconds(request_timeout, "request_timeout"))

    def require_api_key(self) -> str:
        """The API key, found again where it comes from if this configuration came without one.

        Raises:
            AuthenticationException: There is none, and it is not debug mode either.
        """
        key = self.api_key
        if key is None and self.domain == LOCAL_DOMAIN:
            from sandbox_sync import local

            key = local.endpoint().api_key
        key = key or _environment("E2B_API_KEY") or ("" if self.debug else None)
        if key is None:
            raise _missing_key()
        return key

    def without_secrets(self, text: str, *others: str | None) -> str:
        """A server's words without what it may quote of what it was sent: keys, passwords, the extra headers.

        Args:
            text: The words, maybe cut off at their end.
            others: More that must not be seen.
        """
        credentials = urlsplit(self.proxy or "").netloc.rpartition("@")[0]
        for_proxy = [credentials.partition(":")[2], unquote(credentials.partition(":")[2])]
        for_proxy.append(b64encode(unquote(credentials).encode()).decode())
        known = [self.api_key, *self.headers.values(), *for_proxy, *others]
        # Of a header like "Bearer ..." the last word is the secret.
        words = {part for secret in known if secret for part in (secret, secret.rpartition(" ")[2])}
        for word in sorted((word for word in words if len(word) >= _SHORTEST_SECRET), key=len, reverse=True):
            text = text.replace(word, "***")
            cut = next((n for n in range(len(word) - 1, 3, -1) if text.endswith(word[:n])), 0)
            text = f"{text[: len(text) - cut]}***" if cut else text
        return text

    def envd_url(self, sandbox_id: str, sandbox_domain: str | None = None) -> str:
        """Base URL for commands and files of a sandbox; requests name the sandbox in their headers, too.

        Args:
            sandbox_id: The sandbox.
            sandbox_domain: The domain it was created in, if the service said so.
        """
        domain = sandbox_domain or self.domain
        if self.sandbox_url or self.debug or domain not in _SHARED_HOST_DOMAINS:
            return self.sandbox_url or self.direct_envd_url(sandbox_id, sandbox_domain)
        return f"https://sandbox.{domain}"

    def direct_envd_url(self, sandbox_id: str, sandbox_domain: str | None = None) -> str:
        """Base URL of a sandbox's files that works without headers, as links do.

        Args:
            sandbox_id: The sandbox.
            sandbox_domain: The domain it was created in, if the service said so.
        """
        local = self._loopback_port() is not None
        if self.sandbox_url and not local:
            return self.sandbox_url
        scheme = "http" if self.debug else "https"
        if local:
            scheme = urlsplit(self.sandbox_url or "").scheme
        return f"{scheme}://{self.get_host(sandbox_id, ENVD_PORT, sandbox_domain)}"

    def get_host(self, sandbox_id: str, port: int, sandbox_domain: str | None = None) -> str:
        """Host name, and port if it has one, under which a port of a sandbox is reached.

        Args:
            sandbox_id: The sandbox.
            port: The port inside it, 1 to 65535.
            sandbox_domain: The domain it was created in, if the service said so.

        Raises:
            InvalidArgumentException: The id or the port cannot be one.
        """
        if not 0 < port < 65536:
            raise InvalidArgumentException(f"port has to be between 1 and 65535; got {port!r}")
        # The id becomes part of a host name: nothing that would change whose host it is may get in.
        if not (sandbox_id.isascii() and sandbox_id.replace("-", "").replace("_", "").isalnum()):
            raise InvalidArgumentException(f"not a sandbox id: {sandbox_id!r}")
        loopback_port = self._loopback_port()
        if loopback_port is not None:
            return f"{port}-{sandbox_id}.localhost:{loopback_port}"
        if self.debug:
            return f"localhost:{port}"
        return f"{port}-{sandbox_id}.{sandbox_domain or self.domain}"

    def _loopback_port(self) -> int | None:
        """Port of `sandbox_url` if that is on this machine: names under .localhost lead there, too."""
        url = urlsplit(self.sandbox_url or "")
        if url.hostname in ("localhost", "127.0.0.1", "::1"):
            return url.port or (443 if url.scheme == "https" else 80)
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        secret = {"api_key", "headers"}
        if "@" in (self.proxy or ""):
            secret.add("proxy")
        values = {name: value for name, value in self.__dict__.items() if name not in secret}
        values["logger"] = self.logger and self.logger.name
        return (_unpickle, (values,))


def _unpickle(values: dict[str, Any]) -> ConnectionConfig:
    name = values.pop("logger", None)
    return ConnectionConfig(**values, logger=name and logging.getLogger(name))


def _environment(name: str) -> str | None:
    """An environment variable; set but empty is not set."""
    return os.environ.get(name) or None


def _missing_key() -> AuthenticationException:
    return AuthenticationException(
        "No API key. Set E2B_API_KEY (or pass api_key=...) to use a remote service, or set E2B_DOMAIN=local "
        '(or pass domain="local") to run sandboxes on this machine, which needs no account.'
    )


def _base_url(url: str, name: str) -> str:
    """A URL to which paths can be added.

    Raises:
        InvalidArgumentException: It is none. What may be a password in it is not shown.
    """
    shown = repr(f"***@{url.rpartition('@')[2]}" if "@" in url else url)
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not url.isprintable() or " " in url:
        raise InvalidArgumentException(f"{name} has to be an http:// or https:// URL; got {shown}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidArgumentException(
            f"{name} can hold neither a user and password nor a query; got {shown}. "
            "What a gateway wants to see goes into headers"
        )
    return url.rstrip("/")


def _domain(name: str) -> str:
    # It becomes part of host names, and what comes before it in them must stay so.
    if not name.isprintable() or any(character in " /@?#%\\" for character in name):
        raise InvalidArgumentException(f'domain has to be a host name such as "e2b.app"; got {name!r}')
    return name


def _headers(headers: Mapping[str, str] | None, option: str) -> dict[str, str]:
    """A copy of headers. Neither names nor values are shown when they cannot be: they may be secrets."""
    pairs = list(headers.items()) if isinstance(headers, Mapping) else []
    if not isinstance(headers, (Mapping, type(None))) or not all(
        isinstance(part, str) for pair in pairs for part in pair
    ):
        raise InvalidArgumentException(f"{option} has to map str to str")
    return dict(pairs)


def _client_cert(files: str | tuple[str, str] | None) -> str | tuple[str, str] | None:
    """The files, as what can be compared and hashed."""
    if not files or isinstance(files, str):
        return files or None
    if isinstance(files, (tuple, list)) and len(files) == 2 and all(isinstance(file, str) for file in files):
        return files[0], files[1]
    raise InvalidArgumentException(
        "client_cert has to be the name of a file, or a pair of names: of the certificate's and of its key's"
    )


def _transport(name: str) -> Transport:
    if name == "auto":
        return "connect"
    if name not in ("connect", "grpc"):
        raise InvalidArgumentException(f'transport has to be "auto", "connect" or "grpc"; got {name!r}')
    return cast("Transport", name)
