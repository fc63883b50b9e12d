"""Where templates are kept: a directory with a file `NAME.json` for each, and a directory for each build.

The file names the build that the template has now. To replace it is to write a new build and rename a new
file over the old; to delete it is to remove the file. A build that no file names counts for nothing, and is
removed once nobody has it locked: imports lock theirs alone, sandboxes share the lock of the one they use.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

ROOTFS = "rootfs"
"""Where in the directory of a build its root file system lies."""

VARIABLE = "SANDBOX_SYNC_TEMPLATES"

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_BUILD = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TAKEN = "base"
_SUFFIX = ".json"


class TemplateError(Exception):
    """What was asked for can't be done with this template; the message says why and what to do."""


@dataclass(frozen=True)
class Stored:
    """A template that is kept.

    Attributes:
        name: What people call it.
        build_id: Its present build.
        build_count: How many it has had.
        created_at: When the first was imported, ISO 8601 in UTC.
        updated_at: When the present one was.
        bytes: What its files hold.
        files: How many there are.
    """

    name: str
    build_id: str
    build_count: int
    created_at: str
    updated_at: str
    bytes: int
    files: int

    @property
    def template_id(self) -> str:
        """Its id, the same for whatever is imported under its name."""
        return template_id(self.name)


def template_id(name: str) -> str:
    """The id of the template of that name."""
    return "t" + hashlib.sha256(name.encode()).hexdigest()[:19]


def check_name(name: str) -> str:
    """A name that a template may have.

    Raises:
        TemplateError: It may not.
    """
    if name == _TAKEN:
        raise TemplateError(f"'{_TAKEN}' is this machine's own system; give the template another name")
    if not _NAME.fullmatch(name):
        raise TemplateError(
            f"a template can't be called {name!r}: a name has 1 to 63 of a to z, 0 to 9, '_' and '-', and "
            "begins with a letter or digit"
        )
    return name


def default_directory(environment: Mapping[str, str]) -> Path | None:
    """Where templates are kept unless an option says otherwise; None for a user without a home directory."""
    if told := environment.get(VARIABLE):
        return Path(told)
    if os.geteuid() == 0:
        return Path("/var/lib/sandbox-sync/templates")
    data = environment.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return Path(data, "sandbox-sync", "templates") if os.path.isabs(data) else None


class Lock:
    """A lock on the directory of a build, for as long as this is not closed."""

    def __init__(self, path: Path, *, alone: bool, wait: bool) -> None:
        """Take it.

        Raises:
            BlockingIOError: Somebody else has it, and `wait` is false.
            FileNotFoundError: There is no such build.
        """
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(
                self._fd, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB)
            )
            if not os.path.samestat(os.fstat(self._fd), os.stat(path)):
                raise FileNotFoundError(f"{path} has been replaced")
        except BaseException:
            os.close(self._fd)
            raise

    def close(self) -> None:
        """Give it back."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


class Store:
    """The templates of one directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> None:
        """Make the directory, for its owner alone: programs in templates may be set-user-id.

        Raises:
            TemplateError: It can't be made, or others may enter it.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            info = self.path.stat()
        except OSError as error:
            raise TemplateError(
                f"the directory for templates can't be made: {error}; name another with --templates"
            ) from None
        if info.st_uid != os.geteuid():
            raise TemplateError(
                f"{self.path} belongs to user {info.st_uid}; templates are kept by their owner"
            )
        if info.st_mode & 0o077:
            raise TemplateError(
                f"others may enter {self.path}, and programs in templates may be set-user-id; "
                f"`chmod 700 {self.path}`"
            )

    def templates(self) -> list[Stored]:
        """Every template, by name."""
        found = (self.find(path.name[: -len(_SUFFIX)]) for path in self._files())
        return [template for template in found if template]

    def find(self, name: str) -> Stored | None:
        """The template of that name."""
        if not _NAME.fullmatch(name):
            return None
        try:
            stored = Stored(**json.loads((self.path / f"{name}{_SUFFIX}").read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return stored if stored.name == name and _BUILD.fullmatch(stored.build_id) else None

    def lease(self, name: str) -> tuple[Stored, Lock]:
        """The present build of a template, and what keeps it from being removed.

        Raises:
            TemplateError: There is none of that name.
        """
        while stored := self.find(name):
            try:
                lock = Lock(self.path / stored.build_id, alone=False, wait=True)
            except FileNotFoundError:
                if stored == self.find(name):
                    raise TemplateError(f"the files of template {name!r} are gone; import it again") from None
                continue
            if stored == self.find(name):
                return stored, lock
            lock.close()
        raise TemplateError(f"template {name!r} was deleted")

    def begin(self) -> tuple[str, Lock]:
        """Make the directory of a new build; returns its id, and the lock that keeps it."""
        while True:
            build_id = str(uuid.uuid4())
            path = self.path / build_id
            path.mkdir(mode=0o700)
            try:
                return build_id, Lock(path, alone=True, wait=False)
            except (FileNotFoundError, BlockingIOError):
                continue  # taken for a leftover in the moment before it was locked

    def publish(self, name: str, build_id: str, size: int, files: int) -> Stored:
        """Let a template have a new build."""
        now = datetime.now(timezone.utc).isoformat()
        old = self.find(name)
        count, created = (old.build_count, old.created_at) if old else (0, now)
        stored = Stored(name, build_id, count + 1, created, now, size, files)
        written = self.path / build_id / f"{name}{_SUFFIX}"
        written.write_text(json.dumps(asdict(stored)))
        written.rename(self.path / written.name)
        return stored

    def delete(self, name: str) -> None:
        """Let there be no template of that name; sandboxes that live from it keep its files.

        Raises:
            TemplateError: There is none.
        """
        try:
            (self.path / f"{check_name(name)}{_SUFFIX}").unlink()
        except FileNotFoundError:
            raise TemplateError(f"there is no template {name!r} in {self.path}") from None

    def leftovers(self) -> list[tuple[str, Lock]]:
        """The builds that no template has and nobody uses, with locks on them."""
        found = []
        for name in os.listdir(self.path):
            if not _BUILD.fullmatch(name) or name in self._present():
                continue
            try:
                lock = Lock(self.path / name, alone=True, wait=False)
            except OSError:
                continue
            if name in self._present():  # its import ended just now
                lock.close()
            else:
                found.append((name, lock))
        return found

    def _present(self) -> set[str]:
        """The builds that files name, whatever else may be wrong with these."""
        texts = (path.read_text(errors="replace") for path in self._files())
        return {match[0] for text in texts for match in _BUILD.finditer(text)}

    def _files(self) -> list[Path]:
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return []
        return [self.path / name for name in sorted(names) if name.endswith(_SUFFIX)]
