"""How the service is reached."""

from __future__ import annotations

from collections.abc import Mapping
from logging import Logger
from typing import TypedDict


class ConnectionOptions(TypedDict, total=False):
    """How to reach the service, beyond the documented options; each beats its environment variable.

    Attributes:
        api_url: Base URL of the control plane.
        sandbox_url: Base URL that all sandboxes are reached under.
        transport: "connect" (as "auto"), or "grpc".
        ca_bundle: File with the certificates to trust.
        client_cert: File with a client certificate and its key, or one file for each.
        api_headers: `headers` under another name. A header that is in both has the value that it has here.
        retries: How often a call that failed is made again, where that does no harm and may help; 3 when left
            out, 0 for never. No wait for it outlives `request_timeout`.
        logger: Where to log instead of the logger "sandbox_sync": calls at DEBUG, repeated ones at INFO, and
            what went wrong unseen at WARNING. What calls carry, keys and tokens are never logged.
    """

    api_url: str | None
    sandbox_url: str | None
    transport: str | None
    ca_bundle: str | None
    client_cert: str | tuple[str, str] | None
    api_headers: Mapping[str, str] | None
    retries: int | None
    logger: Logger | None
