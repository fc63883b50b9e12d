"""The operations of the contract that one machine can't offer, and why."""

from __future__ import annotations

from sandbox_local.control.errors import Unsupported
from sandbox_local.control.routing import Endpoint, Route
from sandbox_local.http import Request, Response

_SNAPSHOTS = (
    "snapshots need memory and disks that can be saved and copied; this local server keeps a sandbox in the "
    "memory of its machine alone"
)
_FORK = "forking a sandbox needs a copy of its memory, which this local server can't make"
_TEMPLATES = (
    "this local server builds and changes no templates over its API; `sandbox_local template import NAME "
    "TARBALL|DIR` makes one of a root file system, such as `docker export` writes"
)
_VOLUMES = "volumes are kept by a storage service, which this local server does not have"
_SECRETS = "secrets are kept by a vault, which this local server does not have"

_REASONS = (
    ("POST", "/sandboxes/{sandboxID}/snapshots", _SNAPSHOTS),
    ("GET", "/snapshots", _SNAPSHOTS),
    ("POST", "/sandboxes/{sandboxID}/fork", _FORK),
    ("GET", "/default-templates", _TEMPLATES),
    ("POST", "/v3/templates", _TEMPLATES),
    ("GET", "/v2/templates", _TEMPLATES),
    ("POST", "/v2/templates", _TEMPLATES),
    ("PATCH", "/v2/templates/{templateID}", _TEMPLATES),
    ("POST", "/v2/templates/{templateID}/builds/{buildID}", _TEMPLATES),
    ("POST", "/templates", _TEMPLATES),
    ("POST", "/templates/tags", _TEMPLATES),
    ("DELETE", "/templates/tags", _TEMPLATES),
    ("POST", "/templates/{templateID}", _TEMPLATES),
    ("PATCH", "/templates/{templateID}", _TEMPLATES),
    ("GET", "/templates/{templateID}/files/{hash}", _TEMPLATES),
    ("POST", "/templates/{templateID}/builds/{buildID}", _TEMPLATES),
    ("GET", "/templates/{templateID}/builds/{buildID}/status", _TEMPLATES),
    ("GET", "/templates/{templateID}/builds/{buildID}/logs", _TEMPLATES),
    ("GET", "/templates/{templateID}/tags", _TEMPLATES),
    ("GET", "/templates/{templateID}/tags/count", _TEMPLATES),
    ("GET", "/templates/{templateID}/tags/exists", _TEMPLATES),
    ("GET", "/templates/{templateID}/tags/groups", _TEMPLATES),
    ("GET", "/templates/{templateID}/tags/{tag}/assignments", _TEMPLATES),
    ("GET", "/volumes", _VOLUMES),
    ("POST", "/volumes", _VOLUMES),
    ("GET", "/volumes/{volumeID}", _VOLUMES),
    ("DELETE", "/volumes/{volumeID}", _VOLUMES),
    ("GET", "/secrets", _SECRETS),
    ("POST", "/secrets", _SECRETS),
    ("GET", "/secrets/{secretID}", _SECRETS),
    ("POST", "/secrets/{secretID}", _SECRETS),
    ("DELETE", "/secrets/{secretID}", _SECRETS),
)


def _refuse(reason: str) -> Endpoint:
    async def endpoint(request: Request, parameters: dict[str, str]) -> Response:
        raise Unsupported(reason)

    return endpoint


ROUTES = tuple(Route(method, path, _refuse(reason)) for method, path, reason in _REASONS)
