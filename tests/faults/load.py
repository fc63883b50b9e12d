"""Threads that keep sandboxes busy."""

from __future__ import annotations

import random
import threading
import time
import traceback

from tests.faults.client import SECONDS, Box, Broken, Client, Refused, Stream

ECHO = """\
import socket
s = socket.create_server(("127.0.0.1", 8000), backlog=100)
print("up", flush=True)
while True:
    c = s.accept()[0]
    c.recv(65536)
    c.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
    c.close()
"""


class Load:
    """Threads that each have one sandbox after another and keep it busy until it dies.

    What a sandbox that lives refuses, what takes too long, and every answer for a dead one that clients are
    not told of is a finding.

    Args:
        client: Of the server.
        threads: How many.
        seed: Of what they do when.
    """

    def __init__(self, client: Client, threads: int, seed: int) -> None:
        self.findings: list[str] = []
        self.lost = 0  # sandboxes that died under a thread
        self.rounds = 0  # everything a busy sandbox does, done once
        self._client = client
        self._over = threading.Event()
        self._server_may_die = False
        self._threads = [
            threading.Thread(target=self._work, args=(random.Random(seed + number),), daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def expect_end(self) -> None:
        """From now on the server may be gone."""
        self._server_may_die = True

    def stop(self) -> None:
        """End the threads and their sandboxes; nothing must have been found."""
        self._over.set()
        for thread in self._threads:
            thread.join(3 * SECONDS)
        assert not any(thread.is_alive() for thread in self._threads), "a client hangs"
        assert not self.findings, "\n".join(self.findings)

    def _work(self, chance: random.Random) -> None:
        while not self._over.is_set():
            try:
                self._one_sandbox(chance)
            except (Broken, Refused) as error:
                if self._server_may_die:
                    return
                self.findings.append(f"outside of a sandbox: {error!r}")
            except Exception:  # noqa: BLE001 - a thread has nobody else to tell
                self.findings.append(traceback.format_exc())
                return

    def _one_sandbox(self, chance: random.Random) -> None:
        try:
            box = self._client.create()
        except Refused as refused:
            # It, or all of them, may be killed while it is made.
            if refused.status not in (500, 503) or "sandbox" not in str(refused):
                raise
            return
        streams: list[Stream] = []
        try:
            self._keep_busy(box, streams, chance)
            box.kill()
        except (Broken, Refused) as error:
            self._check_death(box, error)
            self.lost += 1
        finally:
            for stream in streams:
                stream.close(reset=chance.random() < 0.5)

    def _keep_busy(self, box: Box, streams: list[Stream], chance: random.Random) -> None:
        streams.append(
            box.start("setsid sleep 1000 & trap '' TERM INT HUP; while echo x; do sleep 0.02; done")
        )
        streams.append(box.watch("/home/user"))
        serving = box.start(f"exec python3 -S -c '{ECHO}'")
        streams.append(serving)
        serving.next()  # it listens
        deadline = time.monotonic() + chance.uniform(0.3, 1.0)
        while not self._over.is_set() and time.monotonic() < deadline:
            content = chance.randbytes(chance.choice((10, 100_000)))
            box.write("file", content)
            if box.read("file") != content:
                self.findings.append("a file was not read as it was written")
            if box.get(8000) != b"ok":
                self.findings.append("a port answered wrongly")
            for stream in streams[:2]:
                stream.next()
            self.rounds += 1

    def _check_death(self, box: Box, error: Broken | Refused) -> None:
        """What a client was told must be what it is told of sandboxes that have ended."""
        if isinstance(error, Refused) and not (
            error.status in (404, 502) or (error.status == 200 and "unavailable" in str(error))
        ):
            self.findings.append(f"a sandbox that died answered {error!r}")
        deadline = time.monotonic() + SECONDS
        try:
            while box.lives():
                if time.monotonic() > deadline:
                    self.findings.append(f"{error!r} of a sandbox that lives")
                    return
                time.sleep(0.01)
        except Broken:
            if not self._server_may_die:
                raise
