"""Which proxy, if any, stands between this program and a URL; the same for every transport."""

from __future__ import annotations

import os
from base64 import b64encode
from ipaddress import ip_address, ip_network
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from requests.utils import select_proxy

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
        proxy: The configured proxy; None for what HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say, or
            else the system. HTTP_PROXY is ignored in CGI scripts, where a visitor can set it.

    Returns:
        The proxy's URL, or None for a direct connection.

    Raises:
        InvalidArgumentException: It is no URL, or of a kind of proxy that is not supported.
    """
    target = urlsplit(url)
    if is_loopback(target.hostname or ""):
        return None
    chosen = proxy or (None if _is_exempt(target) else select_proxy(url, getproxies()))
    return _checked(chosen) if chosen else None


def authorization(proxy: str) -> dict[str, str]:
    """The headers that a proxy wants to see, if its URL holds a user."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"proxy-authorization": f"Basic {b64encode(credentials.encode()).decode()}"}


def _checked(proxy: str) -> str:
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    try:
        parts = urlsplit(proxy)
        usable = bool(parts.hostname) and parts.port != 0 and proxy.isprintable() and " " not in proxy
    except ValueError:
        usable = False
    if not usable:
        # It is not shown: it may hold a password, and not where one would look for it.
        raise InvalidArgumentException(
            "the proxy has to be a URL such as http://proxy.example.com:3128; "
            "in a user or password other characters than letters and digits are written as %XX"
        )
    if parts.scheme not in ("http", "https"):
        raise InvalidArgumentException(
            f"{parts.scheme}:// proxies are not supported; use an http:// or https:// one"
        )
    return proxy


def _is_exempt(target: SplitResult) -> bool:
    """Whether NO_PROXY names a URL's host: `*`, a name with all below it, an address, or a network.

    Names may begin with "." or "*.", and names and addresses end with ":port" to mean that port alone.
    """
    host = (target.hostname or "").rstrip(".")
    port = target.port or (443 if target.scheme == "https" else 80)
    rules = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if any(_names(rule.strip().lower(), host, port) for rule in rules.split(",")):
        return True
    return bool(proxy_bypass(host))  # what else the system says


def _names(rule: str, host: str, port: int) -> bool:
    if rule == "*":
        return True
    name, colon, number = rule.rpartition(":")
    if colon and number.isdigit() and (":" not in name or name.endswith("]")):
        if int(number) != port:
            return False
        rule = name
    rule = rule.strip("[]").removeprefix("*").strip(".")
    try:
        return ip_address(host) in ip_network(rule, strict=False)
    except ValueError:
        return bool(rule) and (host == rule or host.endswith(f".{rule}"))
