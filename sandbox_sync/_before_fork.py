"""Lets no child be forked while another thread is in the midst of what has to be done once in a process.

The SDK loads most of itself, and builds its models, at its first calls. Python keeps a lock for each module
that is being loaded, and pydantic has some, too. A child inherits locks that are taken, but not the threads
that would release them: it would wait for ever at its own first call.
"""

import os
import sys
import time
from _thread import get_ident  # the threading module is not loaded for this

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

_OURS = frozenset(("sandbox_sync", "sandbox_sync_rest", "sandbox_sync_rpc"))
_MODELS = frozenset(("pydantic", "pydantic_core"))
_LOADED = _OURS | _MODELS | {"google", "grpc", "requests", "tenacity", "urllib3"}

_MOST_SECONDS = 10.0
_POLL_SECONDS = 0.001


def wait_for_others() -> None:
    """Wait, within reason, until no other thread loads anything of ours or is at work with our models."""
    give_up = time.monotonic() + _MOST_SECONDS
    here = get_ident()
    while (_loaded_elsewhere(here) or _modelled_elsewhere(here)) and time.monotonic() < give_up:
        time.sleep(_POLL_SECONDS)


def _loaded_elsewhere(here: int) -> bool:
    # Python has no public way to ask; one that has none of this either is not waited for.
    locks = getattr(sys.modules.get("_frozen_importlib"), "_module_locks", None) or {}
    for name, reference in list(locks.items()):
        if name.partition(".")[0] in _LOADED:
            owner = getattr(reference(), "owner", None)
            if owner is not None and owner != here:
                return True
    return False


def _modelled_elsewhere(here: int) -> bool:
    if "pydantic" not in sys.modules:
        return False
    return any(_is_in_models(frame) for thread, frame in sys._current_frames().items() if thread != here)


def _is_in_models(frame: "FrameType | None") -> bool:
    """Whether a thread that is here has called pydantic from our code."""
    while frame is not None:
        caller = frame.f_back
        if caller is not None and _root(frame) in _MODELS and _root(caller) in _OURS:
            return True
        frame = caller
    return False


def _root(frame: "FrameType") -> str:
    name = frame.f_globals.get("__name__")
    return name.partition(".")[0] if isinstance(name, str) else ""


os.register_at_fork(before=wait_for_others)
