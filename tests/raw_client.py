"""The wire spoken by hand, for tests that look at what the server itself does."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Generator
from typing import Any

import requests

from sandbox_local import LocalServer

TIMEOUT = 30


class RpcError(Exception):
    """A stream ended with an error: its code and message."""


class RawClient:
    """Speaks to one server: REST with its key, and Connect with JSON to its sandboxes."""

    def __init__(self, url: str, api_key: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["X-API-Key"] = api_key

    @classmethod
    def of(cls, server: LocalServer) -> RawClient:
        """A client of a running server."""
        return cls(server.url, server.api_key)

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        """A request to the control plane."""
        options.setdefault("timeout", TIMEOUT)
        return self.session.request(method, self.url + path, **options)

    def create(self, **fields: Any) -> Sandbox:
        """A sandbox that lives for a minute unless `fields` say otherwise."""
        response = self.ask("POST", "/v2/sandboxes", json={"templateID": "base", "timeout": 60, **fields})
        assert response.status_code == 201, response.text
        return Sandbox(self, response.json())


class Sandbox:
    """A sandbox, and its envd."""

    def __init__(self, client: RawClient, made: dict[str, Any]) -> None:
        self.client = client
        self.id = str(made["sandboxID"])
        self.made = made

    @property
    def path(self) -> str:
        """Its path in the control plane."""
        return f"/sandboxes/{self.id}"

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.ask("DELETE", self.path)

    def ask(self, method: str, path: str, port: int = 49983, **options: Any) -> requests.Response:
        """A request to one of its ports."""
        headers = {
            "E2b-Sandbox-Id": self.id,
            "E2b-Sandbox-Port": str(port),
            **({"X-Access-Token": self.made["envdAccessToken"]} if port == 49983 else {}),
            **options.pop("headers", {}),
        }
        options.setdefault("timeout", TIMEOUT)
        return requests.request(method, self.client.url + path, headers=headers, **options)

    def start(
        self, script: str, user: str = "user", stdin: bool = False
    ) -> Generator[dict[str, Any], None, None]:
        """The events of a shell command."""
        message = {"process": {"cmd": "/bin/bash", "args": ["-c", script]}, "stdin": stdin}
        payload = json.dumps(message).encode()
        response = self.ask(
            "POST",
            "/process.Process/Start",
            data=struct.pack(">BI", 0, len(payload)) + payload,
            headers={
                "Content-Type": "application/connect+json",
                "Authorization": "Basic " + base64.b64encode(f"{user}:".encode()).decode(),
            },
            stream=True,
        )
        assert response.status_code == 200, response.text
        with response:
            while True:
                flags, length = struct.unpack(">BI", response.raw.read(5))
                content = json.loads(response.raw.read(length) or b"{}")
                if flags & 2:
                    if "error" in content:
                        raise RpcError(content["error"])
                    return
                yield content["event"]

    def run(self, script: str, user: str = "user") -> str:
        """What a shell command writes to its standard output; it must exit 0."""
        output = b""
        for event in self.start(script, user):
            output += base64.b64decode(event.get("data", {}).get("stdout", ""))
            assert event.get("end", {}).get("exitCode", 0) == 0, (script, event, output)
        return output.decode()
