"""Files as the Filesystem service tells of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox_sync_rpc import filesystem_pb2 as pb

_TYPES = {"file": pb.FILE_TYPE_FILE, "dir": pb.FILE_TYPE_DIRECTORY}
_FIRST_SECOND, _LAST_SECOND = -62135596800, 253402300799  # the years 1 to 9999, which Timestamp can tell


def entry_info(entry: Mapping[str, Any]) -> pb.EntryInfo:
    """The message that tells what the box told of a file."""
    info = pb.EntryInfo(
        name=entry["name"],
        type=_TYPES.get(entry["type"], pb.FILE_TYPE_UNSPECIFIED),
        path=entry["path"],
        size=entry["size"],
        mode=entry["mode"],
        permissions=entry["permissions"],
        owner=entry["owner"],
        group=entry["group"],
        symlink_target=entry["symlink_target"],
        metadata=entry["metadata"],
        is_symlink=entry["is_symlink"],
    )
    seconds, info.modified_time.nanos = divmod(entry["mtime_ns"], 1_000_000_000)
    info.modified_time.seconds = min(max(seconds, _FIRST_SECOND), _LAST_SECOND)
    return info
