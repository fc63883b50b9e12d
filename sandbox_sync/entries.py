"""Directory entries as the service describes them, in the SDK's terms."""

from __future__ import annotations

from datetime import timezone

from sandbox_sync_rpc import filesystem_pb2

from sandbox_sync.models import EntryInfo, FileType

_TYPES = {
    filesystem_pb2.FILE_TYPE_FILE: FileType.FILE,
    filesystem_pb2.FILE_TYPE_DIRECTORY: FileType.DIR,
    filesystem_pb2.FILE_TYPE_SYMLINK: FileType.SYMLINK,
}


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
        modified_time=entry.modified_time.ToDatetime(timezone.utc),
        symlink_target=entry.symlink_target if entry.HasField("symlink_target") else None,
        metadata=dict(entry.metadata) or None,
    )
