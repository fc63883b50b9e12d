"""Who may use a sandbox's envd: its access token, and signatures that stand for it in the URLs of files."""

from __future__ import annotations

import base64
import hashlib
import hmac

from sandbox_local.http import HttpError, Request

_OPEN = frozenset({("GET", "/health"), ("GET", "/files"), ("POST", "/files")})


def check_token(request: Request, token: str | None) -> None:
    """Let a request pass that needs no token or carries the right one. `/files` has a check of its own.

    Args:
        request: The request.
        token: The sandbox's access token, or None when it has none.

    Raises:
        HttpError: It may not pass (401).
    """
    if token is None or (request.method, request.path) in _OPEN:
        return
    if not _equal(request.headers.get("x-access-token", ""), token):
        raise HttpError(401, "unauthorized access, please provide a valid access token in X-Access-Token")


def check_file_access(request: Request, operation: str, token: str | None, now: float) -> None:
    """Let a request for `/files` pass: unsecured, by the token, or by a signature in its query.

    Args:
        request: The request.
        operation: "read" or "write".
        token: The sandbox's access token, or None when it has none.
        now: Seconds since 1970.

    Raises:
        HttpError: It may not pass (401), or the expiration is no number (400).
    """
    if token is None:
        return
    given = request.headers.get("x-access-token")
    if given:
        if not _equal(given, token):
            raise HttpError(401, "unauthorized access, the access token in X-Access-Token is not valid")
        return
    signed = request.parameter("signature")
    if not signed:
        raise HttpError(401, "missing signature query parameter")
    expiration = _number(request.parameter("signature_expiration"))
    path, user = request.parameter("path") or "", request.parameter("username") or ""
    if not _equal(signed, signature(path, operation, user, token, expiration)):
        raise HttpError(401, "invalid signature")
    if expiration is not None and expiration < int(now):
        raise HttpError(401, "signature is already expired")


def signature(path: str, operation: str, user: str, token: str, expiration: int | None) -> str:
    """The signature of a URL.

    Args:
        path: As it stands in the query, decoded and not resolved.
        operation: "read" or "write".
        user: As it stands in the query, or "".
        token: The sandbox's access token.
        expiration: When it ends to be valid, in seconds since 1970, or None.
    """
    parts = [path, operation, user, token]
    if expiration is not None:
        parts.append(str(expiration))
    digest = hashlib.sha256(":".join(parts).encode()).digest()
    return "v1_" + base64.b64encode(digest).decode().rstrip("=")


def _number(text: str | None) -> int | None:
    if not text:
        return None
    if not text.removeprefix("-").isdecimal() or not text.isascii() or len(text) > 20:
        raise HttpError(400, "signature_expiration is not a number of seconds")
    return int(text)


def _equal(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())
