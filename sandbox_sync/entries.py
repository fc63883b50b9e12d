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
_LAST_NANO = 999_999_999


def entry_info(entry: filesystem_pb2.EntryInfo) -> EntryInfo:
    """The same under the documented names."""
    metadata, links = entry.metadata, entry.HasField("symlink_target")
    info = object.__new__(EntryInfo)
    # Not by the constructor of a frozen class, which takes most of the time that a long listing takes.
    fields = info.__dict__
    fields["name"] = entry.name
    fields["type"] = FileType.SYMLINK if entry.is_symlink else _TYPES.get(entry.type)
    fields["path"] = entry.path
    fields["size"] = entry.size
    fields["mode"] = entry.mode
    fields["permissions"] = entry.permissions
    fields["owner"] = entry.owner
    fields["group"] = entry.group
    fields["modified_time"] = _time(entry.modified_time)
    fields["symlink_target"] = entry.symlink_target if links else None
    fields["metadata"] = dict(metadata) if metadata else None
    return info


def _time(stamp: Timestamp) -> datetime:
    seconds, nanos = stamp.seconds, stamp.nanos
    if not _FIRST_SECOND <= seconds <= _LAST_SECOND:
        seconds = min(max(seconds, _FIRST_SECOND), _LAST_SECOND)
    if not 0 <= nanos <= _LAST_NANO:
        nanos = min(max(nanos, 0), _LAST_NANO)
    return _EPOCH + timedelta(0, seconds, nanos // 1000)
