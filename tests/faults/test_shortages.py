"""Descriptors, processes and disk run out: requests are refused in words, and work when there is more."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.faults.census import Census, until, wait_until_as_before
from tests.faults.client import Box, Broken, Client, Connection, Refused
from tests.faults.servers import FaultServer, Identity, NotStarted

DESCRIPTORS = 80
FEW_DESCRIPTORS = (
    f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS}, {DESCRIPTORS}))\n"
)
PROCESSES = 120
FEW_PROCESSES = f"import resource; resource.setrlimit(resource.RLIMIT_NPROC, ({PROCESSES}, {PROCESSES}))\n"

# A server of its own user, since processes are counted for each.
LONELY_ID = 54400


def processor_seconds(server: FaultServer) -> float:
    """The processor time that a server has used."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def create_until_refused(client: Client) -> tuple[list[Box], Refused]:
    """Create sandboxes until there are no more."""
    boxes: list[Box] = []
    while True:
        try:
            boxes.append(client.create())
        except Refused as refused:
            return boxes, refused
        assert len(boxes) < 400


def test_sandboxes_take_all_descriptors(who: Identity) -> None:
    with FaultServer(who, prelude=FEW_DESCRIPTORS) as server:
        client = server.client()
        client.create().kill()
        before = Census.of(server)
        for _ in range(2):  # the second time as the first: nothing of it has stayed
            boxes, refused = create_until_refused(client)
            assert refused.status == 503, refused
            assert "open files" in str(refused)
            assert len(boxes) > 3
            for _ in range(30):
                boxes += create_until_refused(client)[0]
            _try_to_use(boxes[0])
            assert len(client.living()) == len(boxes), "an answer of 503 has killed, or made, a sandbox"
            boxes.pop().kill()
            boxes.pop().kill()
            assert boxes[0].run("echo here") == "here\n"
            for box in boxes:
                box.kill()
            _wait_until_tidy(server, before)


def _wait_until_tidy(server: FaultServer, before: Census) -> None:
    """Wait until the server has what it had. The launcher keeps user namespaces."""

    def tidy() -> bool:
        now = Census.of(server)
        return now.descriptors[0] <= before.descriptors[0] and now.processes <= before.processes

    until(tidy, lambda: (before, Census.of(server)), seconds=20.0)


def _try_to_use(box: Box) -> None:
    """There may be one descriptor left, or not, or not even one for the connection."""
    for work in (lambda: box.run("true"), lambda: box.write("f", b"x"), box.lives):
        refusal = ""
        try:
            work()
        except Refused as refused:
            refusal = str(refused)
        except Broken:
            pass
        assert not refusal or "503" in refusal or "resource_exhausted" in refusal


def test_connections_take_all_they_may(who: Identity) -> None:
    """Who comes when there are too many is told so; the server does not spin, and sandboxes have room."""
    with FaultServer(who, prelude=FEW_DESCRIPTORS) as server:
        client = server.client()
        client.create().kill()
        before = Census.of(server)
        box = client.create()
        connections = [Connection(server.port) for _ in range(DESCRIPTORS)]
        with pytest.raises((Refused, Broken)) as caught:
            client.living()
        assert not isinstance(caught.value, Refused) or caught.value.status == 503
        used = processor_seconds(server)
        time.sleep(1)  # what is measured is a second of being full
        assert processor_seconds(server) - used < 0.25
        for connection in connections:
            connection.close()
        until(lambda: _answers(client), lambda: "it does not recover")
        assert box.run("echo here") == "here\n"
        box.kill()
        wait_until_as_before(server, before)


def _answers(client: Client) -> bool:
    try:
        client.living()
    except (Refused, Broken):
        return False
    return True


def test_processes_run_out(who: Identity) -> None:
    if who.uid is None:
        pytest.skip(
            "the kernel bounds the processes of no root, and those of the one who tests are others' too"
        )
    with FaultServer(who._replace(uid=LONELY_ID), prelude=FEW_PROCESSES) as server:
        client = server.client()
        boxes, refused = create_until_refused(client)
        assert refused.status in (500, 503), refused
        assert "Resource temporarily unavailable" in str(refused)
        with pytest.raises(Refused, match="resource_exhausted"):
            boxes[0].run("true")
        boxes[1].kill()
        boxes[2].kill()
        assert boxes[0].run("echo here") == "here\n"
        for box in client.living():
            client.ask("DELETE", f"/sandboxes/{box}")
        assert client.create().run("echo here") == "here\n"


def test_the_disk_of_a_sandbox_is_full(who: Identity) -> None:
    with FaultServer(who, arguments=["--disk", "64M", "--memory", "256M"]) as server:
        box = server.client().create()
        box.run("head -c 60M /dev/zero > filler")
        with pytest.raises(Refused) as caught:
            box.write("large", bytes(8 << 20))
        assert caught.value.status == 507
        box.run("! head -c 8M /dev/zero > more")
        with pytest.raises(Refused):
            box.write("large", bytes(8 << 20))
        box.call("/filesystem.Filesystem/Remove", {"path": "filler"})
        box.run("rm -f more large")
        box.write("large", bytes(8 << 20))
        assert len(box.read("large")) == 8 << 20
        box.kill()


FULL_DISK = """
import os
from sandbox_local.isolation import syscalls
syscalls.unshare(syscalls.CLONE_NEWNS)
syscalls.mount("none", "/", flags=syscalls.MS_PRIVATE | syscalls.MS_REC)
syscalls.mount("tmpfs", os.environ["TMPDIR"], "tmpfs", data="size=64k")
with open(os.environ["TMPDIR"] + "/filler", "wb", 0) as filler:
    try:
        while filler.write(bytes(4096)):
            pass
    except OSError:
        pass
"""
LOG_THERE = """
os.unlink(os.environ["TMPDIR"] + "/filler")
log = os.open(os.environ["TMPDIR"] + "/log", os.O_WRONLY | os.O_CREAT)
os.dup2(log, 2)
try:
    while os.write(log, bytes(4096)):
        pass
except OSError:
    pass
"""


def _root_only(who: Identity) -> None:
    if who.name != "root":
        pytest.skip("only root may mount a disk to fill")


def test_the_disk_for_the_state_file_is_full(who: Identity) -> None:
    _root_only(who)
    state = ["--state-file", "state.json"]
    with pytest.raises(NotStarted) as caught:
        FaultServer(who, prelude=FULL_DISK + "os.chdir(os.environ['TMPDIR'])\n", arguments=state)
    assert caught.value.code == 1
    assert "can't write the state file" in caught.value.log
    assert "No space left on device" in caught.value.log
    assert "Traceback" not in caught.value.log


def test_the_disk_for_the_log_is_full(who: Identity) -> None:
    """What can't be logged is not; the server goes on."""
    _root_only(who)
    with FaultServer(who, prelude=FULL_DISK + LOG_THERE) as server:
        client = server.client()
        client.create()
        for launcher in server.launchers():
            os.kill(launcher, 9)  # which the server has something to say about
        until(lambda: client.living() == [], lambda: client.living())
        assert client.create().run("echo here") == "here\n"
