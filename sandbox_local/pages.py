"""Errors for people: a browser that opens a port of a sandbox is shown a page in place of JSON."""

from __future__ import annotations

import html
from http import HTTPStatus

from sandbox_local.http import HttpError, Request, Response

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>body {{ font: 1rem/1.5 sans-serif; max-width: 40rem; margin: 15vh auto; padding: 1rem }}</style>
<h1>{title}</h1>
<p>{message}</p>
{details}
</html>
"""


def wants_page(request: Request) -> bool:
    """Whether a request comes from a browser that did not ask for JSON, be it by sending some."""
    asked = request.headers.get("accept", "") + request.headers.get("content-type", "")
    called = "connect-protocol-version" in request.headers
    return "Mozilla/" in request.headers.get("user-agent", "") and "json" not in asked and not called


def page(error: HttpError) -> Response:
    """The page that stands for an error; what it shows is what the JSON would say."""
    details = "".join(
        f"<p>{html.escape(name)}: {html.escape(str(value))}</p>\n" for name, value in error.fields.items()
    )
    text = _PAGE.format(
        title=f"{error.status} {HTTPStatus(error.status).phrase}",
        message=html.escape(error.message),
        details=details,
    )
    headers = {
        **error.headers,
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
    }
    return Response(error.status, headers, text.encode())
