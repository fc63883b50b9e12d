"""The machine's clock is set: sandboxes live as long as they were to, and lists and links go by its words."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import pytest

from sandbox_local.envd.access import signature
from tests.faults.census import until
from tests.faults.client import Box, Client, Connection, Refused, exchange, head
from tests.faults.servers import FaultServer, Identity

HOUR = 3600

# The machine's own clock stays as it is: what the server takes for it is read from a file.
FAKE_CLOCK = """
import datetime, os, time
from sandbox_local.control import events, lease, registry
real = time.time
def fake():
    with open(os.environ["FAKE_CLOCK"]) as file:
        return real() + float(file.read() or 0)
class Fake(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.datetime.fromtimestamp(fake(), tz)
time.time = fake
for module in (events, lease, registry):
    module.datetime = Fake
"""


class Clock:
    """What a server takes for the clock of the machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.set(0)
        path.chmod(0o644)

    def set(self, ahead: float) -> None:
        """Put it so many seconds ahead of the machine's."""
        self.path.write_text(str(ahead))


def ends_in(client: Client, box: Box, ahead: float) -> float:
    """Seconds until a sandbox ends, as the server tells it by a clock that is so far ahead."""
    told = client.ask("GET", box.path)["endAt"].replace("Z", "+00:00")
    return datetime.fromisoformat(told).timestamp() - time.time() - ahead


@pytest.mark.parametrize("jump", [24 * HOUR, -24 * HOUR])
def test_the_clock_jumps(who: Identity, jump: float) -> None:
    path = Path(f"/tmp/faults-clock-{time.monotonic_ns()}")
    clock = Clock(path)
    try:
        with FaultServer(who, prelude=FAKE_CLOCK, env={"FAKE_CLOCK": str(path)}) as server:
            client = server.client()
            first = client.create(timeout=300)
            due = client.create(timeout=2)
            short = client.create(timeout=5)
            clock.set(jump)
            second = client.create(timeout=300)
            assert 290 < ends_in(client, first, jump) <= 301
            client.ask("POST", first.path + "/refreshes", {"duration": 20})
            assert 290 < ends_in(client, first, jump) <= 301, "a refresh has changed a longer life"
            client.ask("POST", short.path + "/refreshes", {"duration": 100})
            assert 90 < ends_in(client, short, jump) <= 101, "a refresh has not made a short life longer"
            until(lambda: not due.lives(), lambda: "its time is over")
            assert sorted(pages(client)) == sorted([first.id, second.id, short.id])
    finally:
        path.unlink()


def pages(client: Client) -> list[str]:
    """The sandboxes, one to a page."""
    found: list[str] = []
    token = ""
    while True:
        fields = {"X-API-Key": client.api_key}
        query = f"limit=1&nextToken={quote(token)}" if token else "limit=1"
        body, token = page(client, query, fields)
        found += body
        if not token:
            return found
        assert len(found) < 10


def page(client: Client, query: str, fields: dict[str, str]) -> tuple[list[str], str]:
    """One page, and the token of the next."""
    connection = Connection(client.port)
    connection.send(head("GET", f"/v2/sandboxes?{query}", fields, 0))
    status, answered = connection.head()
    body = json.loads(connection.body(answered))
    connection.close()
    assert status == 200, body
    return [sandbox["sandboxID"] for sandbox in body], answered.get("x-next-token", "")


def test_links_expire_by_the_clock_on_the_wall(who: Identity) -> None:
    path = Path(f"/tmp/faults-clock-links-{time.monotonic_ns()}")
    clock = Clock(path)
    try:
        with FaultServer(who, prelude=FAKE_CLOCK, env={"FAKE_CLOCK": str(path)}) as server:
            made = server.client().ask("POST", "/v2/sandboxes", {"templateID": "base", "secure": True})
            box = Box(server.client(), made)
            box.write("file", b"content")
            expiration = int(time.time()) + HOUR
            signed = signature("file", "read", "user", made["envdAccessToken"], expiration)
            query = f"path=file&username=user&signature={quote(signed, safe='')}"
            target = f"/files?{query}&signature_expiration={expiration}"
            fields = {"E2b-Sandbox-Id": box.id, "E2b-Sandbox-Port": "49983"}
            for ahead, works in ((0, True), (2 * HOUR, False), (-2 * HOUR, True)):
                clock.set(ahead)
                if works:
                    assert exchange(server.port, "GET", target, fields, b"") == b"content"
                else:
                    with pytest.raises(Refused, match="expired"):
                        exchange(server.port, "GET", target, fields, b"")
    finally:
        path.unlink()
