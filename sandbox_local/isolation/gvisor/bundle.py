"""The container that gVisor is told to run, in the terms of the OCI runtime specification."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

_CAPABILITIES = {
    0: "CHOWN",
    1: "DAC_OVERRIDE",
    2: "DAC_READ_SEARCH",
    3: "FOWNER",
    4: "FSETID",
    5: "KILL",
    6: "SETGID",
    7: "SETUID",
    8: "SETPCAP",
    10: "NET_BIND_SERVICE",
    14: "IPC_LOCK",
    15: "IPC_OWNER",
    18: "SYS_CHROOT",
    19: "SYS_PTRACE",
    27: "MKNOD",
    29: "AUDIT_WRITE",
    31: "SETFCAP",
}
_OPEN_FILES = 65536


def config(argv: list[str], root: str, hostname: str, capabilities: Iterable[int]) -> bytes:
    """The content of `config.json`.

    Args:
        argv: The first process.
        root: The directory that is to be its root.
        hostname: The host name.
        capabilities: What root may.
    """
    names = [f"CAP_{_CAPABILITIES[number]}" for number in sorted(capabilities)]
    limit = {"type": "RLIMIT_NOFILE", "hard": _OPEN_FILES, "soft": _OPEN_FILES}
    process: dict[str, Any] = {
        "user": {"uid": 0, "gid": 0},
        "args": argv,
        "env": [],
        "cwd": "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), names),
        "rlimits": [limit],
        "noNewPrivileges": False,
    }
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        # Without this it puts a file system of its own on an empty /tmp.
        {"destination": "/tmp", "type": "bind", "source": f"{root}/tmp", "options": ["rw"]},
    ]
    namespaces = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]
    return json.dumps(
        {
            "ociVersion": "1.0.0",
            "process": process,
            "root": {"path": root, "readonly": False},
            "hostname": hostname,
            "mounts": mounts,
            "linux": {"namespaces": namespaces},
        }
    ).encode()
