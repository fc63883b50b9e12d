"""Boxes made by a user without any privileges, whose project this user may not even read where it lies."""

from __future__ import annotations

import json

import pytest

from tests.live.unprivileged import run_unprivileged

_PROGRAM = '''
import asyncio, json, os, sys
from sandbox_local.isolation.base import BoxSpec, Command, Limits
from sandbox_local.isolation.namespaces import NamespaceBackend

async def output(fd):
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_read_pipe(lambda: protocol, os.fdopen(fd, "rb"))
    try:
        return (await reader.read()).decode()
    finally:
        transport.close()

async def run(box, script, user="user"):
    process = await box.spawn(Command(["/bin/bash", "-c", script], user))
    out, err = await asyncio.gather(output(process.stdout), output(process.stderr))
    ended = await process.exit
    return [ended.code, out, err]

LISTEN = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
socket.create_server((sys.argv[1], 8000), family=family).accept()[0].sendall(sys.argv[1].encode())
"""

async def ask(box, host):
    server = await box.spawn(Command(["python3", "-c", LISTEN, host], "user"))
    while True:
        try:
            sock = await box.connect(8000)
            break
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
    with sock:
        answer = await asyncio.get_running_loop().sock_recv(sock, 100)
    await asyncio.gather(output(server.stdout), output(server.stderr), server.exit)
    return answer.decode()

async def main():
    backend = NamespaceBackend(**OPTIONS)
    await backend.start()
    box = await backend.create(BoxSpec("box", limits=Limits(disk_bytes=64 << 20)))
    told = {}
    for name, (script, user) in SCRIPTS.items():
        told[name] = await run(box, script, user)
    await box.files("make_dir", path="made", user="user")
    told["made"] = await run(box, "stat -c %U ~/made; touch ~/made/x")
    told["owners"] = []
    for user in ("user", "root"):
        entry = (await box.files("stat", path="/home/user/made", user=user))[0]["entry"]
        told["owners"].append([entry["owner"], entry["group"]])
    told["ports"] = [await ask(box, "127.0.0.1"), await ask(box, "::1")]
    two = Command(["/bin/bash", "-c", "setsid sleep 999 & sudo sleep 999"], "user", pty=(80, 24))
    tree = await box.spawn(two)
    while (await run(box, "pgrep -cx sleep"))[1] != "2\\n":
        pass
    await tree.kill_tree()
    told["killed"] = await run(box, "pgrep -x sleep")
    os.close(tree.pty)
    await box.freeze(); await box.thaw()
    await box.close()
    await backend.close()
    print(json.dumps(told))

asyncio.run(main())
'''


def _told(scripts: dict[str, tuple[str, str]], **options: bool) -> dict[str, list[object]]:
    told: dict[str, list[object]] = json.loads(
        run_unprivileged(f"OPTIONS = {options!r}\nSCRIPTS = {scripts!r}\n" + _PROGRAM)
    )
    return told


def test_an_unprivileged_user_gets_boxes_with_users_sudo_and_bounds() -> None:
    told = _told(
        {
            "user": ("id -u; id -un; pwd; touch ~/x /tmp/x && stat -c %U ~/x", "user"),
            "root": ("id -u; touch /root/x && stat -c %U /root/x; cat /home/user/x", "root"),
            "sudo": ("sudo id -u; sudo -u user id -un; sudo sh -c 'exit 3'", "user"),
            "bound": ("head -c 100M /dev/zero > /tmp/big; rm /tmp/big", "user"),
            "new": ("unshare -U true || mount -t tmpfs x /mnt", "root"),
            "python": ("python3 -c 'print(40 + 2)'", "user"),
            "hidden": ("cat /proc/1/environ || ls /proc/1/fd || cat /root/x", "user"),
        }
    )
    assert told["user"] == [0, "1000\nuser\n/home/user\nuser\n", ""]
    assert told["root"] == [0, "0\nroot\n", ""]
    assert told["sudo"] == [3, "0\nuser\n", ""]
    assert "No space left" in str(told["bound"])
    assert told["new"][0] != 0
    assert told["python"] == [0, "42\n", ""]
    assert told["hidden"][:2] in ([1, ""], [2, ""], [0, ""])
    assert told["made"] == [0, "user\n", ""]
    # One id is behind both names: what is made belongs to who looks, in commands and in file operations.
    assert told["owners"] == [["user", "user"], ["root", "root"]]
    assert told["killed"] == [1, "", ""]
    assert told["ports"] == ["127.0.0.1", "::1"]


@pytest.mark.parametrize("expose", [True, False])
def test_an_unprivileged_users_boxes_have_a_python(expose: bool) -> None:
    script = (
        "python3 -c 'import sys, ssl; print(sys.prefix)';"
        "touch $(python3 -c 'import os, sys; print(os.path.realpath(sys.executable))') || echo no"
    )
    told = _told({"python": (script, "root")}, expose_python=expose)
    lines = str(told["python"][1]).splitlines()
    assert (lines[0] == "/opt/py") is expose, told
    assert lines[-1] == "no", "the host's program can be changed"
