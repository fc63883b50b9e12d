"""Directory entries as the service describes them, in the SDK's terms."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from google.protobuf.timestamp_pb2 import Timestamp
from sandbox_sync_rpc import filesystem_pb2

from sandbox_sync.models.files import EntryInfo, FileType

_TYPES = {
    filesystem_pb2.FILE_TYPE_FILE: FileType.FILE,
    filesystem_pb2.FILE_TYPE_DIRECTORY: FileType.DIR,
    filesystem_pb2.FILE_TYPE_SYMLINK: FileType.SYMLINK,
}

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# What datetime can tell: the years 1 to 9999. Files can have times beyond.
_FIRST_SECOND, _LAST_SECOND = -62135596800, 253402300799


def entry_info(entry: filesystem_pb2.EntryInfo) -> EntryInfo:
    """The same under the documented names."""
    return EntryInfo(
        name=entry.name,
        type=FileType.SYMLINK if entry.is_symlink else _TYPES.get(entry.type),
        path=entry.path,
        size=entry.size,
        mode=entry.mode,
        permissions=entry.permissions,
        owner=entry.owner,
        group=entry.group,
        modified_time=_time(entry.modified_time),
        symlink_target=entry.symlink_target if entry.HasField("symlink_target") else None,
        metadata=dict(entry.metadata) or None,
    )


def _time(stamp: Timestamp) -> datetime:
    seconds = min(max(stamp.seconds, _FIRST_SECOND), _LAST_SECOND)
    return _EPOCH + timedelta(seconds=seconds, microseconds=min(max(stamp.nanos, 0), 999_999_999) // 1000)
