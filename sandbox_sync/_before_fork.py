"""Lets no child be forked while another thread loads a module of this SDK.

The SDK loads most of itself at its first call. Python keeps a lock for each module that is being loaded, and
a child inherits the locks, but not the threads that would release them: it would wait for ever at its own
first call.
"""

from __future__ import annotations

import os
import sys
import time
from _thread import get_ident  # threading itself is not loaded for this

# The SDK, and what it loads in the midst of its functions.
_PACKAGES = frozenset(
    "sandbox_sync sandbox_sync_rest sandbox_sync_rpc google grpc pydantic requests tenacity urllib3".split()
)
_MOST_SECONDS = 10.0
_POLL_SECONDS = 0.001


def let_imports_end() -> None:
    """Wait, within reason, until no other thread loads anything of ours."""
    give_up = time.monotonic() + _MOST_SECONDS
    while _loading_elsewhere() and time.monotonic() < give_up:
        time.sleep(_POLL_SECONDS)


def _loading_elsewhere() -> bool:
    # Python has no public way to ask; where this one has changed there is no waiting.
    locks = getattr(sys.modules.get("_frozen_importlib"), "_module_locks", None) or {}
    here = get_ident()
    for name, reference in list(locks.items()):
        if name.partition(".")[0] in _PACKAGES:
            owner = getattr(reference(), "owner", None)
            if owner is not None and owner != here:
                return True
    return False


os.register_at_fork(before=let_imports_end)
