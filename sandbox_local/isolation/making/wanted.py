"""What one box is to be, as the server tells the zygote and the zygote its fork."""

from __future__ import annotations

from typing import NamedTuple


class Wanted(NamedTuple):
    """The arguments of one box, all of which JSON can hold.

    Attributes:
        hostname: The box's host name.
        disk_bytes: Bound of all that the box writes.
    """

    hostname: str
    disk_bytes: int
