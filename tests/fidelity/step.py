"""A step of the script: one request, or one stream of events, as the files in script/ write it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

SCRIPT = Path(__file__).parent / "script"

_PLANES = ("api", "envd", "port")


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: What it shows, in words; unique.
        row: The section of the wire reference that it is about.
        plane: Who is asked: "api", "envd" or "port"; "rpc" for a method of envd.
        line: Method and path, for example "GET /health"; of "rpc" Service/Method.
        port: The port that "port" asks.
        sandbox: Name under which the id of the sandbox was saved.
        auth: Whether the API key or access token is sent: True, False, or another text in its place.
        headers: Header fields.
        json: Body as JSON.
        text: Body as text.
        hex: Body as hexadecimal digits.
        gzip: Whether the body is packed.
        form: Body as a form of files: name of the file to its content.
        send: The messages of an rpc.
        codec: "json" or "proto".
        user: Name in Authorization: Basic.
        follow: Name under which a stream is kept open once its first event is there.
        join: Name of a stream that is now read to its end; the events are what is compared.
        repeat: A step that is asked again, for at most ten seconds, until it is as `expect` says.
        save: Names to save values of the answer under: name to path in its JSON, with dots.
        expect: What a server that keeps the contract answers; see `expectation`.
        optional: Members of JSON objects that an answer may have or lack, whatever their values.
        words: Texts that must stand in the body, or in none: clients look for them.
    """

    name: str
    row: str
    plane: str
    line: str
    port: int = 0
    sandbox: str = "sandbox"
    auth: bool | str = True
    headers: dict[str, str] = field(default_factory=dict)
    json: Any = None
    text: str | None = None
    hex: str | None = None
    gzip: bool = False
    form: dict[str, str] | None = None
    send: tuple[Any, ...] = ()
    codec: str = "json"
    user: str | None = None
    follow: str | None = None
    join: str | None = None
    repeat: bool = False
    save: dict[str, str] = field(default_factory=dict)
    expect: dict[str, Any] = field(default_factory=dict)
    optional: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


def load(names: Iterable[str] = ()) -> list[Step]:
    """The steps of the script in order.

    Args:
        names: Files of it without their ending; all, if empty.
    """
    wanted = set(names)
    return [
        _step(written)
        for path in sorted(SCRIPT.glob("*.yaml"))
        if not wanted or path.stem in wanted
        for written in yaml.safe_load(path.read_text())
    ]


def _step(written: dict[str, Any]) -> Step:
    fields = dict(written)
    if "rpc" in fields:
        fields.update(plane="rpc", line=fields.pop("rpc"))
        sent = fields.get("send", {})
        fields["send"] = tuple(sent) if isinstance(sent, list) else (sent,)
    elif "join" in fields:
        fields.update(plane="join", line="")
    else:
        plane = next(name for name in _PLANES if name in fields)
        fields.update(plane=plane, line=fields.pop(plane))
    fields.update((name, tuple(fields.get(name, ()))) for name in ("optional", "words"))
    return Step(**fields)
