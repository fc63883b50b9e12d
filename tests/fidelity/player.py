"""Plays steps against one server and gives its answers."""

from __future__ import annotations

import base64
import gzip
import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import requests

from tests.fidelity import answer, stream
from tests.fidelity.answer import Answer
from tests.fidelity.expectation import problem
from tests.fidelity.step import Step

_SECONDS = 30.0
_PATIENCE = 10.0


class Player:
    """One server, and what was learned from it.

    Args:
        api_url: URL of its control plane.
        api_key: What that asks for.
        sandbox_url: URL of its sandboxes, which are told apart by header fields; the same if not given.

    Attributes:
        known: Values that were saved, by name.
    """

    def __init__(self, api_url: str, api_key: str, sandbox_url: str | None = None) -> None:
        self.known: dict[str, str] = {}
        self._api_url = api_url.rstrip("/")
        self._sandbox_url = (sandbox_url or api_url).rstrip("/")
        self._api_key = api_key
        self._made: list[str] = []
        self._open: dict[str, tuple[list[dict[str, Any]], Iterator[dict[str, Any]]]] = {}
        self._session = requests.Session()
        self._session.trust_env = False
        # As a program would be that says nothing of itself.
        self._session.headers.clear()

    def close(self) -> None:
        """End every sandbox that was made."""
        for sandbox_id in self._made:
            self._session.delete(
                f"{self._api_url}/sandboxes/{sandbox_id}",
                headers={"X-API-Key": self._api_key},
                timeout=_SECONDS,
            )
        self._session.close()

    def play(self, step: Step) -> Answer:
        """Ask what a step asks.

        Raises:
            requests.RequestException: There is no answer.
            KeyError: A value is missing that an earlier step should have saved.
        """
        until = time.monotonic() + _PATIENCE
        while True:
            given = self._join(step) if step.join else self._ask(step)
            if not step.repeat or problem(step, given, self.known) is None or time.monotonic() > until:
                break
            time.sleep(0.05)
        for name, path in step.save.items():
            self.known[name] = str(_at(given.body, path))
        return given

    def _join(self, step: Step) -> Answer:
        said, rest = self._open.pop(str(step.join))
        said.extend(rest)
        return Answer(200, {}, stream.events(said), json.dumps(said))

    def _ask(self, step: Step) -> Answer:
        if step.plane == "rpc":
            return self._call(step)
        method, _, path = self._filled(step.line).partition(" ")
        url = (self._api_url if step.plane == "api" else self._sandbox_url) + path
        response = self._request(step, method, url, self._body(step))
        made = step.plane == "api" and method == "POST" and response.status_code == 201
        content = answer.body(response.content, response.headers.get("content-type", ""))
        if made and isinstance(content, dict) and "sandboxID" in content:
            self._made.append(content["sandboxID"])
        headers = answer.relevant(response.headers.items())
        return Answer(response.status_code, headers, content, response.text)

    def _call(self, step: Step) -> Answer:
        method = stream.METHODS[step.line]
        enveloped = stream.streams(method)
        sent = [stream.encode(self._filled(message), method.request, step.codec) for message in step.send]
        payload = b"".join(map(stream.pack, sent)) if enveloped else b"".join(sent)
        if step.hex is not None:
            payload = bytes.fromhex(step.hex)
        kind = f"application/connect+{step.codec}" if enveloped else f"application/{step.codec}"
        headers = {"Content-Type": kind, "Connect-Protocol-Version": "1"}
        if step.user is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{step.user}:".encode()).decode()
        url = f"{self._sandbox_url}/{step.line}"
        response = self._request(step, "POST", url, payload, headers, stream=enveloped)
        relevant = answer.relevant(response.headers.items())
        if not enveloped or not response.headers.get("content-type", "").startswith("application/connect+"):
            content = response.content
            is_message = response.status_code == 200 and step.codec == "proto"
            said = (
                stream.decode(content, method.response, "proto")
                if is_message
                else answer.body(content, response.headers.get("content-type", ""))
            )
            return Answer(response.status_code, relevant, said, response.text)
        coming = stream.messages(response, method.response, step.codec)
        if step.follow is not None:
            first = next(coming)
            self._open[step.follow] = ([first], _closing(response, coming))
            return Answer(response.status_code, relevant, first)
        with response:
            came = list(coming)
        return Answer(response.status_code, relevant, stream.events(came), json.dumps(came))

    def _request(
        self,
        step: Step,
        method: str,
        url: str,
        body: Any,
        headers: Mapping[str, str] = {},
        **options: Any,
    ) -> requests.Response:
        fields = {**headers, **self._addressed(step), **self._filled(step.headers)}
        files = step.form and [("file", (self._filled(name), text)) for name, text in step.form.items()]
        return self._session.request(
            method,
            url,
            data=body,
            files=files,
            headers=fields,
            timeout=_SECONDS,
            allow_redirects=False,
            **options,
        )

    def _addressed(self, step: Step) -> dict[str, str]:
        """The fields that say which sandbox is meant and who is asking."""
        if step.plane == "api":
            return self._authorized(step, "X-API-Key", self._api_key)
        fields = {
            "E2b-Sandbox-Id": self.known[step.sandbox],
            "E2b-Sandbox-Port": str(step.port if step.plane == "port" else 49983),
        }
        if step.plane == "port":
            return fields
        return {**fields, **self._authorized(step, "X-Access-Token", self.known.get(f"{step.sandbox}_token"))}

    def _authorized(self, step: Step, name: str, secret: str | None) -> dict[str, str]:
        given = secret if step.auth is True else step.auth
        return {name: given} if given else {}

    def _body(self, step: Step) -> bytes | None:
        if step.json is not None:
            body = json.dumps(self._filled(step.json)).encode()
        elif step.hex is not None:
            body = bytes.fromhex(step.hex)
        elif step.text is not None:
            body = str(self._filled(step.text)).encode()
        else:
            return None
        return gzip.compress(body, mtime=0) if step.gzip else body

    def _filled(self, value: Any) -> Any:
        """`value` with what was saved under a name in place of $name, as a number if it is one."""
        if isinstance(value, dict):
            return {key: self._filled(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._filled(item) for item in value]
        if not isinstance(value, str):
            return value
        filled = re.sub(r"\$([a-z_]+)", lambda match: self.known[match[1]], value)
        return int(filled) if filled != value and filled.isdecimal() else filled


def _closing(response: requests.Response, coming: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    with response:
        yield from coming


def _at(value: Any, path: str) -> Any:
    for key in path.split("."):
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value
