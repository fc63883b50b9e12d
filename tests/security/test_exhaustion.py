"""A sandbox that takes all it can get: host, server and a second sandbox go on, and it can be killed (G7)."""

from __future__ import annotations

import os

import pytest

from tests.security.servers import KINDS, on_server

_AFTER = """
async def main(backend):
    greedy = await backend.create(BoxSpec("greedy", limits=Limits(disk_bytes=64 << 20)))
    second = await backend.create(BoxSpec("second"))
    process, told = await hold(greedy, TAKE, USER)
    async def still_answers():
        assert await (await second.spawn(Command(["true"], "user", pty=(80, 24)))).exit
        assert (await run(second, "echo", "ok"))[1] == "ok\\n"
        if not SHARED:
            watched = {"user": "user", "path": "/", "recursive": False, "include_entry": False}
            os.close((await second.files("watch", **watched))[1][0])
        libc = ctypes.CDLL(None)
        host = libc.inotify_init1(0), *os.pipe(), os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
        assert min(host) >= 0, host
        assert libc.inotify_add_watch(host[0], b"/", 2) > 0, "no watches are left"
        for fd in host:
            os.close(fd)
    try:
        took = [await timed(still_answers()), await timed(greedy.close())]
    except (OSError, asyncio.TimeoutError) as error:
        raise AssertionError(f"others go short: {error!r}") from None
    os.close(process.stdout)
    return [told, took]

start(main)
"""

_TAKE = """
import ctypes, fcntl, mmap, os, resource, signal, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
kept = []
def take(act, most=1 << 20):
    number = 0
    try:
        while number < most:
            kept.append(act())
            number += 1
    except (OSError, RuntimeError):
        pass
    return number
def tell(number):
    print(number, flush=True)
    signal.pause()
"""

_WAYS = {  # what is taken, and how much of it one sandbox may get at most
    "inotify instances": (
        "def one():\n"
        "    fd = libc.inotify_init1(0)\n"
        "    if fd < 0: raise OSError\n"
        "    return fd\n"
        "tell(take(one, 5000))",
        4000,
    ),
    "inotify watches": (
        "tops = os.walk('/usr')\n"
        "names = [os.path.join(top, name).encode() for top, _, names in tops for name in names][:5000]\n"
        "def one():\n"
        "    fd = libc.inotify_init1(0)\n"
        "    if fd < 0: raise OSError\n"
        "    for name in names:\n"
        "        if libc.inotify_add_watch(fd, name, 2) > 0: watched.append(name)\n"
        "        elif ctypes.get_errno() == 28: raise OSError\n"
        "    return fd\n"
        "watched = []\n"
        "take(one, 50)\n"
        "tell(len(watched))",
        250_000,
    ),
    "terminals": ("tell(take(lambda: os.open('/dev/ptmx', os.O_RDWR | os.O_NOCTTY), 5000))", 256),
    "descriptors": ("tell(take(lambda: os.dup(0)))", 65536),
    "pipes": (
        "def one():\n"
        "    ends = os.pipe()\n"
        "    fcntl.fcntl(ends[1], 1031, 1 << 20)\n"
        "    os.set_blocking(ends[1], False)\n"
        "    os.write(ends[1], bytes(1 << 20))\n"
        "    return ends\n"
        "tell(take(one, 2000))",
        1999,
    ),
    "socket buffers": (
        "def one():\n"
        "    a, b = socket.socketpair()\n"
        "    a.setblocking(False)\n"
        "    try: a.send(bytes(1 << 22))\n"
        "    except BlockingIOError: pass\n"
        "    return a, b\n"
        "tell(take(one, 300))",
        300,
    ),
    "semaphores": (
        "def one():\n    if libc.semget(0, 1, 0o1600) < 0: raise OSError\ntell(take(one, 40000))",
        32000,
    ),
    "locks": (
        "file = open('/tmp/locked', 'w')\n"
        "tell(take(lambda: fcntl.lockf(file, fcntl.LOCK_EX, 1, len(kept) * 2), 3000))",
        3000,
    ),
    "disk": (
        "file = os.open('/tmp/full', os.O_WRONLY | os.O_CREAT)\n"
        "tell(take(lambda: os.write(file, bytes(1 << 20)), 1000))",
        64,
    ),
    "files": (
        "tell(take(lambda: os.close(os.open('/tmp/%d' % len(kept), os.O_CREAT | os.O_WRONLY)), 100000))",
        16384,
    ),
    "zombies": (
        "def one():\n"
        "    if os.fork() == 0: os._exit(0)\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_DFL)\n"
        "tell(take(one, 500))",
        500,
    ),
}


@pytest.mark.parametrize("way", _WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_one_sandbox_takes_the_others_and_the_host_still_have(kind: str, way: str) -> None:
    """G7: a greedy sandbox delays nobody else, and can be killed."""
    take, most = _WAYS[way]
    # Without a range of ids the sandboxes of a server share half of what its user may have of inotify.
    shared = kind == "unprivileged" and way.startswith("inotify")
    told, took = on_server(kind, _AFTER, TAKE=_TAKE + take, USER="root", SHARED=shared)
    assert 0 < int(told) <= most
    assert max(took) < 5


_PROCESSES = """
import _thread
_thread.stack_size(64 << 10)
gate = _thread.allocate_lock()
gate.acquire()
total = 0
for uid in (1000, 2001, 2002):
    told, count = os.pipe()
    try:
        child = os.fork()
    except OSError:
        break  # nothing is left
    if child == 0:
        os.setresuid(uid, uid, uid)
        os.write(count, b"%d" % take(lambda: _thread.start_new_thread(gate.acquire, ()), 5000))
        signal.pause()
    total += int(os.read(told, 16))
tell(total)
"""


@pytest.mark.skipif("root" not in KINDS, reason="users of a sandbox are told apart by a server of root only")
def test_all_users_of_a_sandbox_have_a_bounded_number_of_processes_together() -> None:
    told, took = on_server("root", _AFTER, TAKE=_TAKE + _PROCESSES, USER="root", SHARED=False)
    assert 4096 < int(told) < 8192
    assert max(took) < 5


def test_terminals_and_watches_of_the_host_are_not_counted_for_its_root() -> None:
    """What the kernel counts of a sandbox of root's server it counts for an id that nobody else has."""
    if "root" not in KINDS:
        pytest.skip("the server is not root's here")
    owner = on_server(
        "root",
        """
async def main(backend):
    box = await backend.create(BoxSpec("box"))
    base = int((await run(box, "cat", "/proc/self/uid_map"))[1].split()[1])
    pids = [pid for pid in os.listdir("/proc") if pid.isdigit()]
    found = set()
    for pid in pids:
        try:
            if open(f"/proc/{pid}/uid_map").read().split()[1:2] != [str(base)]:
                continue
            fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY)
        except OSError:
            continue
        import fcntl, struct
        owner = struct.unpack("I", fcntl.ioctl(fd, 0xB704, bytes(4)))[0]
        os.close(fd)
        found.add((owner, base))
    return sorted(found)

start(main)
""",
    )
    assert owner
    assert all(uid == base != os.geteuid() for uid, base in owner)
