"""Which hosts a program speaks to: seen in the packets that it sends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# In a network of its own every packet to wherever goes out by the loopback device, where it is seen. A
# program is run there, and asks in the end where packets went other than to services of this machine.
SPY = r'''
import contextlib, ctypes, fcntl, os, socket, struct, subprocess, sys
CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWNS = 0x10000000, 0x40000000, 0x20000
SIOCSIFFLAGS, SIOCADDRT, IFF_UP, RTF_UP, ETH_P_ALL = 0x8914, 0x890B, 1, 1, 3
libc = ctypes.CDLL(None, use_errno=True)
uid, gid = os.geteuid(), os.getegid()
if libc.unshare(CLONE_NEWNET | CLONE_NEWNS | (CLONE_NEWUSER if uid else 0)):
    raise OSError(ctypes.get_errno(), "unshare")
if uid:
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
# Names are asked of an address out there.
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
with open("resolv.conf", "w") as file:
    file.write("nameserver 203.0.113.53\noptions timeout:1 attempts:1\n")
resolver = os.path.realpath("/etc/resolv.conf").encode()
if libc.mount(b"resolv.conf", resolver, None, MS_BIND, None):
    raise OSError(ctypes.get_errno(), "mount")
probe = socket.socket()
fcntl.ioctl(probe, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
device = ctypes.create_string_buffer(b"lo")
anywhere = struct.pack("HH4s8x", socket.AF_INET, 0, b"\0" * 4)
route = struct.pack("@L16s16s16sHhLPhPLLH", 0, anywhere, anywhere, anywhere, RTF_UP, 0, 0, 0, 0,
                    ctypes.addressof(device), 0, 0, 0)
fcntl.ioctl(probe, SIOCADDRT, route)
spy = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
spy.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE: nothing may be missed
spy.setblocking(False)


def seen():
    """Where packets went since the last look, other than to the addresses of loopback."""
    there = set()
    with contextlib.suppress(BlockingIOError):
        while True:
            packet = spy.recv(65536)[14:]
            if packet[0] >> 4 == 4:
                address = socket.inet_ntoa(packet[16:20])
            else:
                address = socket.inet_ntop(socket.AF_INET6, packet[24:40])
            if not address.startswith("127.") and address != "::1":
                there.add(address)
    _, drops = struct.unpack("II", spy.getsockopt(263, 6, 8))  # PACKET_STATISTICS
    assert drops == 0, "some packets were not seen"
    return there


# The spy sees what it has to see: a connection to an address, and the question for a name.
for address in (("198.51.100.7", 443), ("api.e2b.app", 443)):
    with contextlib.suppress(OSError):
        socket.create_connection(address, 0.2).close()
assert seen() == {"198.51.100.7", "203.0.113.53"}, "the spy is blind"
'''

PROGRAM = r"""
import pickle, time
from sandbox_local import LocalServer
transport = sys.argv[1]
for name in list(os.environ):
    if name.startswith("E2B_") or name.lower().endswith("_proxy"):
        del os.environ[name]
with LocalServer() as server:
    from sandbox_sync import PtySize, Sandbox, SandboxException, SandboxQuery
    # The key is of no form that a service would have, and the domain is one of a service that exists.
    if sys.argv[2] == "environment":
        os.environ.update(server.env, E2B_DOMAIN="e2b.app", SANDBOX_SYNC_TRANSPORT=transport)
        where = {}
    else:
        where = dict(api_key=server.api_key, api_url=server.url, sandbox_url=server.url, transport=transport)
    sandbox = Sandbox.create(metadata={"a": "b"}, network={"allow_public_traffic": False}, **where)
    name = sandbox.sandbox_id
    same = Sandbox.connect(name, **where)
    assert same.commands.run("echo x").stdout == "x\n"
    handle = sandbox.commands.run("cat", background=True, stdin=True)
    handle.send_stdin("y")
    sandbox.commands.send_stdin(handle.pid, "z")
    handle.close_stdin()
    assert handle.wait().stdout == "yz"
    handle = sandbox.commands.run("sleep 100", background=True, check=False)
    assert sandbox.commands.connect(handle.pid).kill()
    handle.wait()
    assert sandbox.commands.kill(handle.pid) is False
    sandbox.commands.list()
    terminal = sandbox.pty.create(PtySize(24, 80), on_data=lambda data: None)
    sandbox.pty.resize(terminal.pid, PtySize(30, 90))
    sandbox.pty.send_stdin(terminal.pid, b"exit\n")
    terminal.wait()
    sandbox.files.write("a", "b")
    sandbox.files.write([{"path": "c", "data": b"d"}, {"path": "e", "data": "f"}])
    assert sandbox.files.read("a") == "b"
    with sandbox.files.read("a", format="stream") as stream:
        assert b"".join(stream) == b"b"
    sandbox.files.list(".")
    sandbox.files.exists("a")
    sandbox.files.get_info("a")
    sandbox.files.rename("a", "g")
    sandbox.files.remove("g")
    sandbox.files.make_dir("h")
    watch = sandbox.files.watch_dir("h", lambda event: None)
    sandbox.files.write("h/i", "j")
    watch.stop()
    assert sandbox.is_running()
    for box, more in ((Sandbox, (name,)), (sandbox, ())):
        options = where if more else {}
        box.get_info(*more, **options)
        box.set_timeout(*more, 100, **options)
        box.get_metrics(*more, **options)
        assert box.pause(*more, **options)
        box.connect(*more, **options)
        for call in (box.fork, box.create_snapshot, lambda *a, **k: list(box.list_snapshots(*a, **k))):
            try:
                call(*more, **options)
            except SandboxException as error:
                assert error.status == 501, error
        try:
            box.update_network(*more, {}, **options)
        except SandboxException as error:
            assert error.status == 501, error
    list(Sandbox.list(query=SandboxQuery(metadata={"a": "b"}), limit=1, **where))
    sandbox.get_host(80), sandbox.sandbox_domain, sandbox.traffic_access_token
    import urllib.request
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    opener.open(urllib.request.Request(sandbox.upload_url("k"), b"l",
        {"Content-Type": "application/octet-stream"})).close()
    assert opener.open(sandbox.download_url("k", use_signature_expiration=60)).read() == b"l"
    if sys.argv[2] == "environment":
        copy = pickle.loads(pickle.dumps(sandbox))
        assert copy.files.read("k") == "l"
    pid = os.fork()
    if not pid:
        try:
            os._exit(0 if sandbox.files.exists("k") else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert sandbox.kill() is True
    assert Sandbox.kill(name, **where) is False
    assert sandbox.is_running() is False
    try:
        sandbox.commands.run("x")
    except SandboxException:
        pass
others = seen()
assert others == set(), others
print("spoke to nobody else")
"""


@pytest.mark.parametrize("given", ["options", "environment"])
def test_no_other_host_is_spoken_to(tmp_path: Path, transport: str, given: str) -> None:
    """G25: with api_url and sandbox_url set, packets go to that server and to nobody else, DNS included,
    whatever is called by id or at hand; and a key of any form is taken."""
    done = subprocess.run(
        [sys.executable, "-c", SPY + PROGRAM, transport, given],
        cwd=tmp_path,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "spoke to nobody else\n"
