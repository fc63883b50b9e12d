"""What one box is to be, as the server tells the zygote and the zygote its fork."""

from __future__ import annotations

from typing import NamedTuple


class Wanted(NamedTuple):
    """The arguments of one box, all of which JSON can hold.

    Attributes:
        hostname: The box's host name.
        disk_bytes: Bound of all that the box writes.
        shm_bytes: Bound of its /dev/shm.
        processes: Bound of the processes of each user.
        data_bytes: Bound of the data of each process; 0 where all of them together have a bound.
        template: The build of a template of the store that it starts from, or "" for the host's system.
    """

    hostname: str
    disk_bytes: int
    shm_bytes: int
    processes: int
    data_bytes: int
    template: str = ""
