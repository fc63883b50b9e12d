"""An answer in a form in which two can be compared: what may differ between servers is taken out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Header fields that clients act upon; of those with False only the presence counts.
HEADERS = {
    "accept-post": True,
    "access-control-allow-origin": True,
    "access-control-max-age": True,
    "allow": True,
    "connect-content-encoding": True,
    "content-disposition": True,
    "content-encoding": True,
    "content-range": True,
    "content-type": True,
    "etag": False,
    "last-modified": False,
    "x-e2b-legacy-sdk": True,
    "x-next-token": False,
    "x-total-running": False,
}

# Members of JSON objects of which only the type counts: ids, times, figures, tokens, versions, hosts, and
# the wording of errors (what clients look for in it is a step's `words`).
MAY_DIFFER = frozenset(
    [
        "alias",
        "aliases",
        "clientID",
        "cpuCount",
        "cpuUsedPct",
        "cpu_count",
        "cpu_used_pct",
        "diskSizeMB",
        "diskTotal",
        "diskUsed",
        "disk_total",
        "disk_used",
        "domain",
        "endAt",
        "envdAccessToken",
        "envdVersion",
        "logEntries",
        "logs",
        "memCache",
        "memTotal",
        "memUsed",
        "mem_cache",
        "mem_total",
        "mem_total_mib",
        "mem_used",
        "mem_used_mib",
        "memoryMB",
        "message",
        "modifiedTime",
        "pid",
        "sandboxID",
        "startedAt",
        "templateID",
        "timestamp",
        "timestampUnix",
        "trafficAccessToken",
        "ts",
        "watcherId",
    ]
)

_LONG = 2000


@dataclass(frozen=True)
class Answer:
    """What a server answered to a step.

    Attributes:
        status: HTTP status; of a stream that was joined 200.
        headers: Header fields that count.
        body: JSON as it is, a short text as itself, anything else as its length and digest; of a stream the
            list of its events.
        raw: The body in words, for `words`.
    """

    status: int
    headers: Mapping[str, str]
    body: Any
    raw: str = ""

    def comparable(self, known: Mapping[str, str]) -> dict[str, Any]:
        """What has to be equal on two servers.

        Args:
            known: Values that were saved by name; in texts their names take their places.
        """
        return {
            "status": self.status,
            "headers": self._headers(known),
            "body": _without_differences(_named(self.body, known)),
        }

    def _headers(self, known: Mapping[str, str]) -> dict[str, str]:
        return {
            name: str(_named(value, known)) if HEADERS[name] else "present"
            for name, value in self.headers.items()
        }


def body(content: bytes, content_type: str) -> Any:
    """The body of an answer, by what it is."""
    if not content:
        return None
    if "json" in content_type or content[:1] in (b"{", b"["):
        try:
            return json.loads(content)
        except ValueError:
            pass
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = ""
    if text and len(text) <= _LONG and "\0" not in text:
        return text
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def relevant(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The header fields that count, in canonical form."""
    kept = {}
    for name, value in headers:
        name, value = name.lower(), value.strip()
        if name in HEADERS:
            listed = sorted(part.strip() for part in value.split(","))
            kept[name] = ", ".join(listed) if name in ("accept-post", "allow") else value.replace("; ", ";")
    return kept


def _without_differences(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_differences(item) for item in value]
    if isinstance(value, dict):
        return {
            key: _type(item) if key in MAY_DIFFER else _without_differences(item)
            for key, item in value.items()
        }
    return value


def _type(value: Any) -> str:
    return f"<{type(value).__name__}>" if value is not None else "<null>"


def _named(value: Any, known: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_named(item, known) for item in value]
    if isinstance(value, dict):
        return {_named(key, known): _named(item, known) for key, item in value.items()}
    if isinstance(value, str):
        for name, text in known.items():
            if len(text) > 5:
                value = value.replace(text, f"${name}")
    return value
