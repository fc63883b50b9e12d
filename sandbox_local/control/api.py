"""The control plane's door: who may ask, and who answers what."""

from __future__ import annotations

import hmac

from sandbox_local.control import unsupported
from sandbox_local.control.lifecycle import Lifecycle
from sandbox_local.control.queries import Queries
from sandbox_local.control.registry import Registry
from sandbox_local.control.routing import Router
from sandbox_local.control.template_queries import TemplateQueries
from sandbox_local.control.templates import Catalog
from sandbox_local.http import HttpError, Request, Response
from sandbox_local.isolation.base import BoxGone


class ControlPlane:
    """Answers requests to the control plane.

    Args:
        registry: The sandboxes.
        api_key: What every request but GET /health must carry as X-API-Key.
        domain: Domain under which ports of sandboxes are reached, or None if it is for the client to know.
        catalog: What sandboxes can be made from; without, it is this machine's own system.
    """

    def __init__(
        self, registry: Registry, api_key: str, domain: str | None, catalog: Catalog | None = None
    ) -> None:
        self._api_key = api_key.encode()
        catalog = catalog or Catalog()
        self._router = Router(
            [
                *Queries(registry, domain).routes(),
                *Lifecycle(registry, domain, catalog).routes(),
                *TemplateQueries(catalog, registry.limits).routes(),
                *unsupported.ROUTES,
            ]
        )

    async def handle(self, request: Request) -> Response:
        """Answer a request.

        Raises:
            HttpError: Why there is no other answer.
        """
        if request.raw_path == "/health" and request.method == "GET":
            return Response(204)
        self._authenticate(request)
        endpoint, parameters = self._router.find(request)
        try:
            return await endpoint(request, parameters)
        except BoxGone:
            raise HttpError(404, "the sandbox has ended") from None

    def _authenticate(self, request: Request) -> None:
        given = request.headers.get("x-api-key")
        if given is None:
            raise HttpError(401, "the header X-API-Key is missing; it takes the E2B_API_KEY of this server")
        if not hmac.compare_digest(given.encode(), self._api_key):
            raise HttpError(
                401, "the API key is not the one of this server; set E2B_API_KEY to what it printed"
            )
