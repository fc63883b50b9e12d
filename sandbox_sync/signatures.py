"""Links to files of a sandbox: who has one needs no token, and may do with it one thing to one file."""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote, urlencode

from sandbox_sync._arguments import path_text, user_name
from sandbox_sync.errors import InvalidArgumentException

Operation = Literal["read", "write"]


def link(
    base_url: str,
    operation: Operation,
    path: str | os.PathLike[str] | None,
    user: str | None,
    token: str | None,
    expiration: int | None,
    *,
    address: Mapping[str, str] | None = None,
) -> str:
    """A link to a file.

    Args:
        base_url: Where the sandbox's files are reached without headers.
        operation: What may be done with it.
        path: The file; None leaves it to who uploads.
        user: Whose file it is; the sandbox's default user when None.
        token: The sandbox's access token, which signs; None for a sandbox that is open to all.
        expiration: Seconds from now for which the link is good; None for as long as the sandbox lives.
        address: What else the link has to say so that it is found.

    Raises:
        InvalidArgumentException: An argument cannot be used, or there is nothing to sign with.
    """
    from sandbox_sync_rest.api.envd import get_files, post_files

    named: dict[str, Any] = {"path": None if path is None else path_text(path), "username": user_name(user)}
    if token is not None:
        end = None if expiration is None else int(time.time()) + _lifetime(expiration)
        signature = sign(named["path"] or "", operation, user or "", token, end)
        named |= {"signature": signature, "signature_expiration": end}
    elif expiration is not None:
        raise InvalidArgumentException(
            "use_signature_expiration: the sandbox has no access token, so its links are not signed and do "
            "not expire; leave it out"
        )
    request = (get_files if operation == "read" else post_files).build(**named)
    parameters = [*request.params, *(address or {}).items()]
    return f"{base_url}{request.path}?{urlencode(parameters, quote_via=quote)}".rstrip("?")


def sign(path: str, operation: Operation, user: str, token: str, end: int | None) -> str:
    """What proves that who made a link knew the token.

    Args:
        path: As it stands in the link; "" if it does not.
        operation: What may be done.
        user: As it stands in the link; "" if it does not.
        token: The sandbox's access token.
        end: Until when the link is good, in seconds since 1970.
    """
    parts = [path, operation, user, token, *([] if end is None else [str(end)])]
    digest = hashlib.sha256(":".join(parts).encode()).digest()
    return "v1_" + base64.b64encode(digest).decode().rstrip("=")


def _lifetime(seconds: int) -> int:
    if not isinstance(seconds, int) or isinstance(seconds, bool) or seconds < 0:
        raise InvalidArgumentException(
            f"use_signature_expiration has to be a whole number of seconds; got {seconds!r}"
        )
    return seconds
