"""REST operations on templates: what there is, and deleting one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from sandbox_local.control import wire
from sandbox_local.control.errors import Conflict
from sandbox_local.control.routing import Route
from sandbox_local.control.templates import BASE, Catalog, Template
from sandbox_local.http import Request, Response
from sandbox_local.isolation.base import Limits
from sandbox_local.templates.store import Stored

_READY = "ready"
_BASE_BUILD = "00000000-0000-4000-8000-000000000000"


class TemplateQueries:
    """Answers them.

    Args:
        catalog: The templates.
        limits: What a sandbox may use.
    """

    def __init__(self, catalog: Catalog, limits: Limits) -> None:
        self._catalog = catalog
        self._limits = limits
        self._started = datetime.now(timezone.utc).isoformat()

    def routes(self) -> list[Route]:
        """What is answered here."""
        return [
            Route("GET", "/templates", self._list),
            Route("GET", "/templates/aliases/{alias}", self._alias),
            Route("GET", "/templates/{templateID}", self._get),
            Route("DELETE", "/templates/{templateID}", self._delete),
        ]

    async def _list(self, request: Request, parameters: dict[str, str]) -> Response:
        return Response.json(200, [self._shown(*found) for found in self._catalog.all()], {})

    async def _alias(self, request: Request, parameters: dict[str, str]) -> Response:
        template = self._catalog.resolve(parameters["alias"])
        return Response.json(200, {"templateID": template.template_id, "public": template is BASE}, {})

    async def _get(self, request: Request, parameters: dict[str, str]) -> Response:
        shown = self._shown(*self._catalog.find(parameters["templateID"]))
        build = {
            "buildID": shown["buildID"],
            "status": _READY,
            "createdAt": shown["updatedAt"],
            "updatedAt": shown["updatedAt"],
            "finishedAt": shown["updatedAt"],
            **{name: shown[name] for name in ("cpuCount", "memoryMB", "diskSizeMB", "envdVersion")},
        }
        return Response.json(200, {**shown, "builds": [build]}, {})

    async def _delete(self, request: Request, parameters: dict[str, str]) -> Response:
        template, stored = self._catalog.find(parameters["templateID"])
        if stored is None:
            raise Conflict(
                f"template {template.alias!r} is this machine's own system, which can't be deleted"
            )
        self._catalog.delete(stored)
        return Response(204)

    def _shown(self, template: Template, stored: Stored | None) -> Mapping[str, Any]:
        """A template as lists show it. How often it was used is not counted here, so it says never."""
        return {
            "templateID": template.template_id,
            "buildID": stored.build_id if stored else _BASE_BUILD,
            "cpuCount": self._limits.cpu_count,
            "memoryMB": self._limits.memory_bytes >> 20,
            "diskSizeMB": self._limits.disk_bytes >> 20,
            "public": stored is None,
            "aliases": [template.alias],
            "names": [template.alias],
            "createdAt": stored.created_at if stored else self._started,
            "updatedAt": stored.updated_at if stored else self._started,
            "createdBy": None,
            "lastSpawnedAt": None,
            "spawnCount": 0,
            "buildCount": stored.build_count if stored else 1,
            "envdVersion": wire.ENVD_VERSION,
            "buildStatus": _READY,
        }
