"""The blocking SDK for E2B-compatible sandboxes.

Importing it loads next to nothing: a name is looked up in its module when it is first used, so that a program
that forks, or that patches the standard library, does so from a clean process.
"""

from sandbox_sync import _before_fork as _before_fork
from sandbox_sync._version import __version__ as __version__

TYPE_CHECKING = False  # as good as typing's to a type checker, and costs no import
if TYPE_CHECKING:
    from sandbox_sync.ambient import deadline as deadline
    from sandbox_sync.commands import Commands as Commands
    from sandbox_sync.config import ConnectionConfig as ConnectionConfig
    from sandbox_sync.errors import AuthenticationException as AuthenticationException
    from sandbox_sync.errors import CommandExitException as CommandExitException
    from sandbox_sync.errors import CommandTimeoutException as CommandTimeoutException
    from sandbox_sync.errors import ConflictException as ConflictException
    from sandbox_sync.errors import ConnectionException as ConnectionException
    from sandbox_sync.errors import DeadlineExceededException as DeadlineExceededException
    from sandbox_sync.errors import EventsLostException as EventsLostException
    from sandbox_sync.errors import FileNotFoundException as FileNotFoundException
    from sandbox_sync.errors import ForkedWithActiveStreamException as ForkedWithActiveStreamException
    from sandbox_sync.errors import GuestUnresponsiveException as GuestUnresponsiveException
    from sandbox_sync.errors import IncompleteCallException as IncompleteCallException
    from sandbox_sync.errors import InvalidArgumentException as InvalidArgumentException
    from sandbox_sync.errors import NotEnoughSpaceException as NotEnoughSpaceException
    from sandbox_sync.errors import NotFoundException as NotFoundException
    from sandbox_sync.errors import PoolClosedException as PoolClosedException
    from sandbox_sync.errors import PoolTimeoutException as PoolTimeoutException
    from sandbox_sync.errors import PortNotOpenException as PortNotOpenException
    from sandbox_sync.errors import RateLimitException as RateLimitException
    from sandbox_sync.errors import RequestTimeoutException as RequestTimeoutException
    from sandbox_sync.errors import SandboxException as SandboxException
    from sandbox_sync.errors import SandboxNotFoundException as SandboxNotFoundException
    from sandbox_sync.errors import SandboxNotRunningException as SandboxNotRunningException
    from sandbox_sync.errors import SandboxUnreachableException as SandboxUnreachableException
    from sandbox_sync.errors import ServiceBusyException as ServiceBusyException
    from sandbox_sync.errors import TemplateException as TemplateException
    from sandbox_sync.errors import TimeoutException as TimeoutException
    from sandbox_sync.errors import TLSException as TLSException
    from sandbox_sync.file_stream import FileStream as FileStream
    from sandbox_sync.filesystem import Filesystem as Filesystem
    from sandbox_sync.handles import CommandHandle as CommandHandle
    from sandbox_sync.listing import Listing as Listing
    from sandbox_sync.models.commands import CommandResult as CommandResult
    from sandbox_sync.models.commands import ProcessInfo as ProcessInfo
    from sandbox_sync.models.commands import PtyOutput as PtyOutput
    from sandbox_sync.models.commands import PtySize as PtySize
    from sandbox_sync.models.commands import Stderr as Stderr
    from sandbox_sync.models.commands import Stdout as Stdout
    from sandbox_sync.models.commands import Username as Username
    from sandbox_sync.models.connection import ConnectionOptions as ConnectionOptions
    from sandbox_sync.models.files import EntryInfo as EntryInfo
    from sandbox_sync.models.files import FilesystemEvent as FilesystemEvent
    from sandbox_sync.models.files import FilesystemEventType as FilesystemEventType
    from sandbox_sync.models.files import FileType as FileType
    from sandbox_sync.models.files import WriteData as WriteData
    from sandbox_sync.models.files import WriteEntry as WriteEntry
    from sandbox_sync.models.files import WriteInfo as WriteInfo
    from sandbox_sync.models.pools import PoolStats as PoolStats
    from sandbox_sync.models.sandboxes import ListedSandbox as ListedSandbox
    from sandbox_sync.models.sandboxes import SandboxInfo as SandboxInfo
    from sandbox_sync.models.sandboxes import SandboxMetrics as SandboxMetrics
    from sandbox_sync.models.sandboxes import SandboxQuery as SandboxQuery
    from sandbox_sync.models.sandboxes import SandboxState as SandboxState
    from sandbox_sync.models.sandboxes import SnapshotInfo as SnapshotInfo
    from sandbox_sync.options import ApiParams as ApiParams
    from sandbox_sync.options import SandboxEgressProxyOpts as SandboxEgressProxyOpts
    from sandbox_sync.options import SandboxEgressProxyTLSOpts as SandboxEgressProxyTLSOpts
    from sandbox_sync.options import SandboxLifecycle as SandboxLifecycle
    from sandbox_sync.options import SandboxNetworkOpts as SandboxNetworkOpts
    from sandbox_sync.options import SandboxNetworkRule as SandboxNetworkRule
    from sandbox_sync.options import SandboxNetworkRules as SandboxNetworkRules
    from sandbox_sync.options import SandboxNetworkTransform as SandboxNetworkTransform
    from sandbox_sync.options import SandboxNetworkUpdate as SandboxNetworkUpdate
    from sandbox_sync.options import SandboxOnTimeout as SandboxOnTimeout
    from sandbox_sync.pool import SandboxPool as SandboxPool
    from sandbox_sync.pty import Pty as Pty
    from sandbox_sync.pty import PtyHandle as PtyHandle
    from sandbox_sync.sandbox import Sandbox as Sandbox
    from sandbox_sync.watch import WatchHandle as WatchHandle

_MODULES = {
    "deadline": "ambient",
    "Commands": "commands",
    "ConnectionConfig": "config",
    "AuthenticationException": "errors",
    "CommandExitException": "errors",
    "CommandTimeoutException": "errors",
    "DeadlineExceededException": "errors",
    "ConflictException": "errors",
    "ConnectionException": "errors",
    "EventsLostException": "errors",
    "FileNotFoundException": "errors",
    "ForkedWithActiveStreamException": "errors",
    "GuestUnresponsiveException": "errors",
    "IncompleteCallException": "errors",
    "InvalidArgumentException": "errors",
    "NotEnoughSpaceException": "errors",
    "NotFoundException": "errors",
    "PoolClosedException": "errors",
    "PoolTimeoutException": "errors",
    "PortNotOpenException": "errors",
    "RateLimitException": "errors",
    "RequestTimeoutException": "errors",
    "SandboxException": "errors",
    "SandboxNotFoundException": "errors",
    "SandboxNotRunningException": "errors",
    "SandboxUnreachableException": "errors",
    "ServiceBusyException": "errors",
    "TLSException": "errors",
    "TemplateException": "errors",
    "TimeoutException": "errors",
    "FileStream": "file_stream",
    "Filesystem": "filesystem",
    "CommandHandle": "handles",
    "Listing": "listing",
    "CommandResult": "models.commands",
    "ConnectionOptions": "models.connection",
    "EntryInfo": "models.files",
    "FileType": "models.files",
    "FilesystemEvent": "models.files",
    "FilesystemEventType": "models.files",
    "ListedSandbox": "models.sandboxes",
    "PoolStats": "models.pools",
    "ProcessInfo": "models.commands",
    "PtyOutput": "models.commands",
    "PtySize": "models.commands",
    "SandboxInfo": "models.sandboxes",
    "SandboxMetrics": "models.sandboxes",
    "SandboxQuery": "models.sandboxes",
    "SandboxState": "models.sandboxes",
    "SnapshotInfo": "models.sandboxes",
    "Stderr": "models.commands",
    "Stdout": "models.commands",
    "Username": "models.commands",
    "WriteData": "models.files",
    "WriteEntry": "models.files",
    "WriteInfo": "models.files",
    "ApiParams": "options",
    "SandboxEgressProxyOpts": "options",
    "SandboxEgressProxyTLSOpts": "options",
    "SandboxLifecycle": "options",
    "SandboxNetworkOpts": "options",
    "SandboxNetworkRule": "options",
    "SandboxNetworkRules": "options",
    "SandboxNetworkTransform": "options",
    "SandboxNetworkUpdate": "options",
    "SandboxOnTimeout": "options",
    "SandboxPool": "pool",
    "Pty": "pty",
    "PtyHandle": "pty",
    "Sandbox": "sandbox",
    "WatchHandle": "watch",
}

__all__ = [*_MODULES, "__version__"]


def __getattr__(name: str) -> object:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
