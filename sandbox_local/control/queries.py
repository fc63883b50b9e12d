"""REST operations that tell of sandboxes: one, a list, what they use, what happened to them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from sandbox_sync_rest.models.sandbox_log import SandboxLog
from sandbox_sync_rest.models.sandbox_log_entry import SandboxLogEntry
from sandbox_sync_rest.models.sandbox_logs import SandboxLogs
from sandbox_sync_rest.models.sandbox_logs_v2_response import SandboxLogsV2Response
from sandbox_sync_rest.models.sandbox_metric import SandboxMetric
from sandbox_sync_rest.models.sandboxes_with_metrics import SandboxesWithMetrics

from sandbox_local.control import listing, wire
from sandbox_local.control.errors import BadRequest
from sandbox_local.control.events import Event
from sandbox_local.control.metrics import measure
from sandbox_local.control.registry import Registry, State
from sandbox_local.control.routing import Route
from sandbox_local.http import Request, Response

_LARGEST_PAGE = 100
_MOST_MEASURED = 100
_MOST_LOGS = 1000
_LONGEST_SEARCH = 256

_LEVELS = ("debug", "info", "warn", "error")

Default = TypeVar("Default", int, None)


class Queries:
    """Answers them.

    Args:
        registry: The sandboxes.
        domain: Domain under which their ports are reached, or None if it is for the client to know.
    """

    def __init__(self, registry: Registry, domain: str | None) -> None:
        self._registry = registry
        self._domain = domain

    def routes(self) -> list[Route]:
        """What is answered here."""
        return [
            Route("GET", "/sandboxes", self._list_v1),
            Route("GET", "/v2/sandboxes", self._list_v2),
            Route("GET", "/sandboxes/metrics", self._metrics_of_many),
            Route("GET", "/sandboxes/{sandboxID}", self._get),
            Route("GET", "/sandboxes/{sandboxID}/metrics", self._metrics),
            Route("GET", "/sandboxes/{sandboxID}/logs", self._logs_v1),
            Route("GET", "/v2/sandboxes/{sandboxID}/logs", self._logs_v2),
        ]

    async def _get(self, request: Request, parameters: dict[str, str]) -> Response:
        sandbox = self._registry.get(wire.sandbox_id(parameters["sandboxID"]))
        return wire.answer(200, wire.detail(sandbox, self._domain))

    async def _list_v1(self, request: Request, parameters: dict[str, str]) -> Response:
        wanted = listing.Filter(
            states=frozenset({State.RUNNING}), metadata=listing.parse_metadata(request.parameter("metadata"))
        )
        found = listing.ordered(filter(wanted.admits, self._registry.living()), ascending=False)
        return wire.answer(200, map(wire.listed, found))

    async def _list_v2(self, request: Request, parameters: dict[str, str]) -> Response:
        template = request.parameter("template")
        if template is not None and ":" in template:
            raise BadRequest("template: a filter takes a template without a tag")
        started_after = request.parameter("startedAfter")
        wanted = listing.Filter(
            states=listing.parse_states(value for name, value in request.query if name == "state"),
            metadata=listing.parse_metadata(request.parameter("metadata")),
            started_after=None
            if started_after is None
            else listing.parse_time("startedAfter", started_after),
            template=template or None,
        )
        ascending = _choice(request, "order", ("desc", "asc")) == "asc"
        token = request.parameter("nextToken")
        page = listing.page(
            filter(wanted.admits, self._registry.living()),
            ascending,
            listing.Cursor.decode(token, ascending) if token else None,
            _number(request, "limit", 1, _LARGEST_PAGE, default=_LARGEST_PAGE),
        )
        headers = {}
        if page.next is not None:
            headers["x-next-token"] = page.next.encode()
        if State.RUNNING in wanted.states:
            running = replace(wanted, states=frozenset({State.RUNNING}))
            headers["x-total-running"] = str(sum(map(running.admits, self._registry.living())))
        return wire.answer(200, map(wire.listed, page.sandboxes), headers)

    async def _metrics(self, request: Request, parameters: dict[str, str]) -> Response:
        sandbox = self._registry.get(wire.sandbox_id(parameters["sandboxID"]))
        start = _number(request, "start", 0, default=0)
        end = _number(request, "end", 0, default=None)
        metrics = [await measure(sandbox)] if sandbox.state is State.RUNNING else []
        return wire.answer(200, [m for m in metrics if _is_within(m, start, end)])

    async def _metrics_of_many(self, request: Request, parameters: dict[str, str]) -> Response:
        values = [value for name, value in request.query if name == "sandbox_ids"]
        ids = list(
            dict.fromkeys(wire.sandbox_id(text) for value in values for text in value.split(",") if text)
        )
        if not 1 <= len(ids) <= _MOST_MEASURED:
            raise BadRequest(
                f"sandbox_ids: name 1 to {_MOST_MEASURED} sandboxes, separated by commas; got {len(ids)}"
            )
        found = [
            sandbox for sandbox in map(self._registry.find, ids) if sandbox and sandbox.state is State.RUNNING
        ]
        metrics = await asyncio.gather(*map(measure, found))
        by_id = {sandbox.sandbox_id: metric for sandbox, metric in zip(found, metrics, strict=True)}
        return wire.answer(200, SandboxesWithMetrics(sandboxes=by_id))

    async def _logs_v1(self, request: Request, parameters: dict[str, str]) -> Response:
        sandbox = self._registry.get(wire.sandbox_id(parameters["sandboxID"]))
        start = _number(request, "start", 0, default=0)
        limit = _number(request, "limit", 0, default=_MOST_LOGS)
        entries = [_entry(event) for event in sandbox.events if _milliseconds(event.at) >= start][:limit]
        lines = [SandboxLog(timestamp=entry.timestamp, line=entry.message) for entry in entries]
        return wire.answer(200, SandboxLogs(logs=lines, log_entries=entries))

    async def _logs_v2(self, request: Request, parameters: dict[str, str]) -> Response:
        sandbox = self._registry.get(wire.sandbox_id(parameters["sandboxID"]))
        limit = _number(request, "limit", 0, _MOST_LOGS, default=_MOST_LOGS)
        forward = _choice(request, "direction", ("backward", "forward")) == "forward"
        cursor = _number(request, "cursor", 0, default=None)
        least = _LEVELS.index(_choice(request, "level", _LEVELS))
        search = request.parameter("search") or ""
        if len(search) > _LONGEST_SEARCH:
            raise BadRequest(f"search: longer than {_LONGEST_SEARCH} characters")
        events: Iterable[Event] = sandbox.events if forward else reversed(list(sandbox.events))
        found = [
            _entry(event)
            for event in events
            if _LEVELS.index(event.level) >= least
            and search in event.message
            and (cursor is None or (_milliseconds(event.at) - cursor) * (1 if forward else -1) >= 0)
        ]
        return wire.answer(200, SandboxLogsV2Response(logs=found[:limit]))


def _choice(request: Request, name: str, choices: tuple[str, ...]) -> str:
    """A parameter that is one of a few words; the first is the default."""
    value = request.parameter(name) or choices[0]
    if value not in choices:
        raise BadRequest(f"{name}: must be one of {', '.join(choices)}; got {value!r}")
    return value


def _number(
    request: Request, name: str, least: int, most: int = 2**63 - 1, *, default: Default
) -> int | Default:
    text = request.parameter(name)
    if text is None:
        return default
    if not re.fullmatch(r"\d{1,19}", text, re.ASCII) or not least <= int(text) <= most:
        raise BadRequest(f"{name}: must be a whole number from {least} to {most}; got {text!r}")
    return int(text)


def _entry(event: Event) -> SandboxLogEntry:
    return SandboxLogEntry(timestamp=event.at, message=event.message, level=event.level, fields=event.fields)


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _is_within(metric: SandboxMetric, start: int, end: int | None) -> bool:
    at = metric.timestamp_unix or 0
    return start <= at and (end is None or at <= end)
