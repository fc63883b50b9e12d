"""Making an unpacked root file system one that sandboxes can start from.

Runs where that is the root directory. Nobody trusts what lies there: files are replaced, not written to, as
they may be links, pipes, or one file under many names.
"""

from __future__ import annotations

import os
import stat
import sys

from sandbox_local.isolation.ids import Ids
from sandbox_local.isolation.making import etc
from sandbox_local.templates.sources import LAYOUT
from sandbox_local.templates.store import TemplateError

_USER = 1000
_DIRECTORIES = {  # what the making of a sandbox relies on; modes of those that are missing or have to be so
    "/dev": 0o755,
    "/etc": 0o755,
    "/home": 0o755,
    "/proc": 0o755,
    "/root": 0o700,
    "/run": 0o755,
    "/sys": 0o755,
    "/tmp": 0o1777,
    "/usr": 0o755,
    "/usr/bin": 0o755,
    "/var": 0o755,
    "/var/tmp": 0o1777,
}
_SUDOERS = "user ALL=(ALL:ALL) NOPASSWD: ALL\n"
_NOBODY_LOGS_IN = "*:19000:0:99999:7:::"
_SHELL = "/bin/bash"
_MAX_BYTES = 1 << 20
_MACHINE = slice(18, 20)  # e_machine of an ELF header


def machine() -> bytes:
    """What this machine's programs say that they are for; to be asked while this Python can be read."""
    with open(sys.executable, "rb") as file:
        return file.read(20)[_MACHINE]


def make_usable(ids: Ids, own_machine: bytes) -> None:
    """Put there what is missing.

    Raises:
        TemplateError: It can't be a sandbox's.
        OSError: The file system refused.
    """
    ids = Ids(0, ids.size)
    _check_shell(own_machine)
    ids.chown("/", 0, 0)
    os.chmod("/", 0o755)
    for path, mode in _DIRECTORIES.items():
        _make_directory(path, mode, ids, owner=0)
    _add_accounts(ids)
    home = _home()
    if home == "/home/user":
        _make_directory(home, 0o755, ids, owner=_USER)
        for name, content in etc.HOME_FILES.items():
            if not os.path.lexists(f"{home}/{name}"):
                _write(f"{home}/{name}", content, ids, owner=_USER)
    for name in ("hosts", "hostname", "resolv.conf"):  # links to what runs on other systems, often
        _write(f"/etc/{name}", "", ids)


def _check_shell(own_machine: bytes) -> None:
    try:
        with open(os.open(_SHELL, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            info = os.fstat(file.fileno())
            start = file.read(20) if stat.S_ISREG(info.st_mode) and info.st_mode & 0o111 else b""
    except OSError:
        start = b""
    if start and not (start.startswith(b"\x7fELF") and start[_MACHINE] != own_machine):
        return
    if start:
        raise TemplateError(f"its {_SHELL} is for another kind of processor than this machine's")
    if any(os.path.isfile(f"/{name}") for name in ("oci-layout", "manifest.json")):
        raise TemplateError(LAYOUT)
    raise TemplateError(
        f"it has no {_SHELL}, which all commands are run by; install bash in it (Debian: `apt install bash`, "
        "Alpine: `apk add bash`) and import it again. If the root file system lies in a directory of the "
        "archive, import that directory"
    )


def _make_directory(path: str, mode: int, ids: Ids, owner: int) -> None:
    """See to it that this is a directory, and no link to one."""
    if os.path.islink(path) or not os.path.isdir(path):
        if os.path.lexists(path):
            os.unlink(path)
        os.mkdir(path)
        ids.chown(path, owner, owner)
    elif mode == 0o755 or mode == 0o700:
        return
    os.chmod(path, mode)


def _add_accounts(ids: Ids) -> None:
    users = _lines("/etc/passwd")
    names = [line.split(":")[0] for line in users]
    if "root" not in names:
        users.insert(0, "root:x:0:0:root:/root:/bin/bash")
    if "user" not in names:
        # Before others of that id, so that it is the name that the id goes by.
        users.insert(1, f"user:x:{_USER}:{_USER}:user:/home/user:/bin/bash")
    _write("/etc/passwd", _joined(users), ids)
    groups = _lines("/etc/group")
    names = [line.split(":")[0] for line in groups]
    if "root" not in names:
        groups.insert(0, "root:x:0:")
    if "user" not in names:
        groups.insert(1, f"user:x:{_USER}:")
    _write("/etc/group", _joined(groups), ids)
    shadow = _lines("/etc/shadow")
    names = [line.split(":")[0] for line in shadow]
    missing = [name for name in ("root", "user") if name not in names]
    _write("/etc/shadow", _joined([*shadow, *(f"{name}:{_NOBODY_LOGS_IN}" for name in missing)]), ids, 0o600)
    if os.path.lexists("/etc/sudoers") or os.path.lexists("/usr/bin/sudo"):
        sudoers = _joined(_lines("/etc/sudoers")) or etc.SUDOERS
        _write("/etc/sudoers", sudoers + _SUDOERS, ids, 0o440)  # the last line that fits is what counts


def _home() -> str:
    fields = next(line.split(":") for line in _lines("/etc/passwd") if line.startswith("user:"))
    return fields[5] if len(fields) > 5 else ""


def _lines(path: str) -> list[str]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return []
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):
        os.close(fd)
        return []
    with open(fd, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        if info.st_size > _MAX_BYTES:
            raise TemplateError(f"its {path} is longer than {_MAX_BYTES} bytes")
        return file.read().splitlines()


def _joined(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _write(path: str, content: str, ids: Ids, mode: int = 0o644, owner: int = 0) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        raise TemplateError(f"its {path} is a directory")
    if os.path.lexists(path):
        os.unlink(path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(fd, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        file.write(content)
    ids.chown(path, owner, owner)
    os.chmod(path, mode)
