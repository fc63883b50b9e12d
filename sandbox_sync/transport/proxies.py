"""Which proxy, if any, stands between this program and a URL; the same for every transport."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from requests.utils import get_environ_proxies, select_proxy

from sandbox_sync.errors import InvalidArgumentException


def is_loopback(host: str) -> bool:
    """Whether a host is this machine. Such hosts are never reached through a proxy."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def proxy_for(url: str, proxy: str | None) -> str | None:
    """The proxy for a URL.

    Args:
        url: Where the request goes.
        proxy: The configured proxy; None for what HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say, as
            requests reads them: HTTP_PROXY is ignored in CGI scripts, where a visitor can set it.

    Returns:
        The proxy's URL, or None for a direct connection.

    Raises:
        InvalidArgumentException: It is a kind of proxy that is not supported.
    """
    if is_loopback(urlsplit(url).hostname or ""):
        return None
    chosen = proxy or select_proxy(url, get_environ_proxies(url))
    if not chosen:
        return None
    if "://" not in chosen:
        chosen = f"http://{chosen}"
    scheme = urlsplit(chosen).scheme
    if scheme not in ("http", "https"):
        raise InvalidArgumentException(
            f"{scheme}:// proxies are not supported; use an http:// or https:// one"
        )
    return chosen
