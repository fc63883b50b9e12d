"""The HTTP engine: HTTP/1.1 and HTTP/2 with prior knowledge on one port, one kind of handler for both."""

from sandbox_local.http.body import Body
from sandbox_local.http.errors import BodyTooLarge, ClientGone, HttpError
from sandbox_local.http.limits import Limits
from sandbox_local.http.message import ByteStream, FileSlice, Handler, Headers, Request, Response, Tunnel
from sandbox_local.http.server import Server, listen

__all__ = [
    "Body",
    "BodyTooLarge",
    "ByteStream",
    "ClientGone",
    "FileSlice",
    "Handler",
    "Headers",
    "HttpError",
    "Limits",
    "Request",
    "Response",
    "Server",
    "Tunnel",
    "listen",
]
