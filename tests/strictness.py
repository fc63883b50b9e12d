"""How programs are run that must not cause any warning."""

from __future__ import annotations

_OF_PROTOBUF = "ignore:Type google._upb:DeprecationWarning"
"""What releases of it before 5.27 do wrong at their import on Python 3.12 and later."""

WATCHFUL = ("-X", "dev", "-W", _OF_PROTOBUF)
"""Options of an interpreter that prints every warning, and looks for more than usual."""

STRICT = ("-W", "error", "-W", _OF_PROTOBUF)
"""Options of one that every warning ends."""
