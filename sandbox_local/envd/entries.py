"""Files as the Filesystem service tells of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sandbox_sync_rpc import filesystem_pb2 as pb

_TYPES = {"file": pb.FILE_TYPE_FILE, "dir": pb.FILE_TYPE_DIRECTORY}
_FIRST_SECOND, _LAST_SECOND = -62135596800, 253402300799  # the years 1 to 9999, which Timestamp can tell


def entry_info(entry: Mapping[str, Any]) -> pb.EntryInfo:
    """The message that tells what the box told of a file."""
    return pb.EntryInfo(**fields(entry))


def fields(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of that message: messages that hold many of them are made of these faster."""
    seconds, nanos = divmod(entry["mtime_ns"], 1_000_000_000)
    told = {
        "name": entry["name"],
        "type": _TYPES.get(entry["type"], pb.FILE_TYPE_UNSPECIFIED),
        "path": entry["path"],
        "size": entry["size"],
        "mode": entry["mode"],
        "permissions": entry["permissions"],
        "owner": entry["owner"],
        "group": entry["group"],
        "modified_time": {"seconds": min(max(seconds, _FIRST_SECOND), _LAST_SECOND), "nanos": nanos},
    }
    if entry.get("is_symlink"):
        told["is_symlink"] = True
        told["symlink_target"] = entry["symlink_target"]
    if metadata := entry.get("metadata"):
        told["metadata"] = metadata
    return told
