"""What can be wrong with a machine, a box or a request to a box; raised inside the boxes as well."""


class IsolationError(Exception):
    """This machine cannot make an isolated environment; the message says why and what to change."""


class BoxGone(Exception):
    """The box has ended: it was closed, or its first process died."""


class UnknownUser(Exception):
    """The box has no user of that name."""


class MissingDirectory(Exception):
    """The working directory asked for does not exist in the box."""
