# ruff: noqa
# mypy: ignore-errors
"""Runs inside a sandbox, as a program of its own: tries doors and tells which errno each was shut with.

Prints one JSON object: what each try came to, by name. `open` means that the door is not shut.
"""

import ctypes
import errno
import json
import mmap
import os
import socket
import struct
import sys
import traceback

SECRET, HOST_PID, TCP_PORT, ABSTRACT = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
X86 = os.uname().machine == "x86_64"

libc = ctypes.CDLL(None, use_errno=True)
told = {}


def try_to(name, act):
    """Note what comes of an action."""
    try:
        found = act()
    except OSError as error:
        found = errno.errorcode.get(error.errno, str(error.errno))
    except Exception:
        found = traceback.format_exc()
    told[name] = "open" if found is None else found


def call(number, *arguments):
    """A system call by its number: its errno, or nothing if it succeeds."""
    arguments = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    if libc.syscall(ctypes.c_long(number), *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")


def clone(flags):
    pid = libc.syscall(ctypes.c_long(56 if X86 else 220), *map(ctypes.c_long, (flags | 17, 0, 0, 0, 0)))
    if pid == 0:
        os._exit(0)
    if pid < 0:
        raise OSError(ctypes.get_errno(), "")
    os.waitpid(pid, 0)


def in_child(act):
    """Do something in a child; what it returns, or the name of what killed it."""
    told_here, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            text = act() or "open"
        except OSError as error:
            text = errno.errorcode[error.errno]
        except BaseException as error:
            text = repr(error)
        os.write(tell, text.encode())
        os._exit(0)
    os.close(tell)
    text = os.read(told_here, 4096).decode()
    os.close(told_here)
    status = os.waitpid(pid, 0)[1]
    return text if text else "killed by %d" % os.WTERMSIG(status)


def read(path, size=64):
    with open(path, "rb") as file:
        return None if file.read(size) else "empty"


def write(path, content=b"x"):
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)


# What is the agent's, process 1.
for name in ("root", "cwd", "fd", "map_files", "task/1/root"):
    try_to("list /proc/1/" + name, lambda: os.listdir("/proc/1/" + name) and None)
for name in ("environ", "mem", "exe", "maps", "auxv", "stack", "syscall", "ns/mnt", "fd/3"):
    try_to("read /proc/1/" + name, lambda: read("/proc/1/" + name))
for name in ("mem", "exe", "oom_score_adj", "uid_map"):
    try_to("write /proc/1/" + name, lambda: write("/proc/1/" + name))
try_to("trace the agent", lambda: call(101 if X86 else 117, 16, 1, 0, 0))
iovec = ctypes.create_string_buffer(struct.pack("QQ", ctypes.addressof(ctypes.create_string_buffer(8)), 8))
try_to("read the agent's memory", lambda: call(310 if X86 else 270, 1, iovec, 1, iovec, 1, 0))
try_to("write the agent's memory", lambda: call(311 if X86 else 271, 1, iovec, 1, iovec, 1, 0))
try_to("compare with the agent", lambda: call(312 if X86 else 272, os.getpid(), 1, 2, 0, 0))


def take_descriptor():
    pidfd = libc.syscall(434, 1, 0)
    try:
        call(438, pidfd, 3, 0)
    finally:
        os.close(pidfd)


try_to("take the agent's descriptor", take_descriptor)

# What is the host's.
try_to("host file", lambda: read(SECRET))
try_to("host file by ..", lambda: read("/" + "../" * 30 + SECRET))
try_to("host process", lambda: os.kill(HOST_PID, 0))
try_to("host port", lambda: socket.create_connection(("127.0.0.1", TCP_PORT), 2).close())
try_to("host abstract socket", lambda: socket.socket(socket.AF_UNIX).connect("\0" + ABSTRACT))


def roots():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ("root", "cwd", "root/proc/1/root"):
            if os.path.exists(f"/proc/{pid}/{name}{SECRET}"):
                return None
    return "none"


def leave_chroot():
    os.makedirs("/tmp/jail", exist_ok=True)
    os.chroot("/tmp/jail")
    for _ in range(64):
        os.chdir("..")
    os.chroot(".")
    return (
        None
        if os.path.exists(SECRET)
        else "at home in %s" % ("a box" if os.path.isdir("/home/user") else "?")
    )


try_to("root of another process", roots)
try_to("out of a chroot", lambda: in_child(leave_chroot))
try_to("environment", lambda: ",".join(sorted(os.environ)))
try_to(
    "descriptors",
    lambda: ",".join(
        sorted(name for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name))
    ),
)
try_to("processes", lambda: "few" if sum(map(str.isdigit, os.listdir("/proc"))) < 10 else None)
try_to("control groups", lambda: open("/proc/self/cgroup").read().count("/..") and None or "own")
try_to("write a control group", lambda: os.mkdir("/sys/fs/cgroup/mine"))
try_to("/sys", lambda: ",".join(os.listdir("/sys")))
try_to("core size", lambda: str(__import__("resource").getrlimit(4)))
try_to("secret in mountinfo", lambda: None if SECRET in open("/proc/self/mountinfo").read() else "none")

# Parts of the kernel that are everybody's.
for name in (
    "kernel/core_pattern",
    "kernel/printk",
    "kernel/ns_last_pid",
    "vm/drop_caches",
    "fs/suid_dumpable",
    "net/ipv4/ip_forward",
    "user/max_inotify_instances",
    "kernel/modprobe",
):
    try_to("write sysctl " + name, lambda: write("/proc/sys/" + name, b"1"))
for name in ("kcore", "keys", "kallsyms", "timer_list", "sched_debug", "latency_stats"):
    if os.path.exists("/proc/" + name):
        try_to("read /proc/" + name, lambda: read("/proc/" + name))
try_to("sysrq", lambda: "null" if os.stat("/proc/sysrq-trigger").st_rdev == os.makedev(1, 3) else None)
try_to("make a device", lambda: os.mknod("/tmp/device", 0o60600, os.makedev(254, 0)))
try_to("devices", lambda: ",".join(sorted(set(os.listdir("/dev")) - {"fd", "stdin", "stdout", "stderr"})))

# System calls. Where arguments would be judged first, they are such that an unfiltered kernel says other.
P = ctypes.c_char_p
for name, act in {
    "unshare user": lambda: call(272 if X86 else 97, 0x10000000),
    "unshare mount": lambda: call(272 if X86 else 97, 0x00020000),
    "clone user": lambda: clone(0x10000000),
    "clone net": lambda: clone(0x40000000),
    "clone3": lambda: call(435, 0, 0),
    "setns": lambda: call(308 if X86 else 268, -1, 0),
    "mount": lambda: call(165 if X86 else 40, 0, 0, 0, 0, 0),
    "umount2": lambda: call(166 if X86 else 39, 0, 255),
    "pivot_root": lambda: call(155 if X86 else 41, 0, 0),
    "fsopen": lambda: call(430, P(b"tmpfs"), 0),
    "open_tree": lambda: call(428, -100, P(b"/"), 0),
    "move_mount": lambda: call(429, -1, 0, -1, 0, -1),
    "mount_setattr": lambda: call(442, -1, P(b"/"), 0, 0, 0),
    "open_by_handle_at": lambda: call(304 if X86 else 265, -1, 0, 0),
    "io_uring_setup": lambda: call(425, 1, 0),
    "bpf": lambda: call(321 if X86 else 280, 99, 0, 0),
    "perf_event_open": lambda: call(298 if X86 else 241, 0, 0, 0, 0, 0),
    "keyctl": lambda: call(250 if X86 else 219, 0, -3, 1),
    "add_key": lambda: call(248 if X86 else 217, 0, 0, 0, 0, 0),
    "request_key": lambda: call(249 if X86 else 218, 0, 0, 0, 0),
    "userfaultfd": lambda: call(323 if X86 else 282, 1),
    "fanotify_init": lambda: call(300 if X86 else 262, 0x200, 0),
    "init_module": lambda: call(175 if X86 else 105, 0, 0, 0),
    "kexec_load": lambda: call(246 if X86 else 104, 0, 0, 0, 0),
    "settimeofday": lambda: call(164 if X86 else 170, 0, 1),
    "quotactl": lambda: call(179 if X86 else 60, -1, 0, 0, 0),
    "syslog": lambda: call(103 if X86 else 116, 10, 0, 0),
}.items():
    try_to("call " + name, act)


def old_entry():
    """getpid by the entry of 32-bit programs, which has numbers of its own."""
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\x53\xb8\x14\x00\x00\x00\xcd\x80\x5b\xc3")  # push rbx; mov eax, 20; int 0x80; pop rbx; ret
    entry = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    number = entry()
    return None if number > 0 else errno.errorcode[-number]


if X86:
    try_to("call by int 0x80", lambda: in_child(old_entry))
    try_to("call by x32", lambda: call(0x40000000 + 39))
for name, family in {"vsock": 40, "alg": 38, "packet": 17, "xdp": 44, "bluetooth": 31, "tipc": 30}.items():
    try_to("socket " + name, lambda: socket.socket(family, socket.SOCK_DGRAM).close())
try_to("socket pair tipc", lambda: call(53 if X86 else 199, 30, 5, 0, P(bytes(8))))
try_to("socket raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close())
try_to("socket ordinary", lambda: [socket.socket(family).close() for family in (1, 2, 10)] and "works")
try_to("interfaces", lambda: ",".join(name for _, name in socket.if_nameindex()))
print(json.dumps(told))
