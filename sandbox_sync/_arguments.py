"""Arguments, checked before anything is sent, and answers that break the contract, as errors of the SDK."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from pydantic import ValidationError
from sandbox_sync_rest.errors import InvalidResponse

from sandbox_sync.errors import InvalidArgumentException, SandboxException

M = TypeVar("M")

_LONGEST_PATH = 4095
_LONGEST_NAME = 255


def message(kind: Callable[..., M], **fields: object) -> M:
    """A protobuf message of these fields.

    Raises:
        InvalidArgumentException: One of them does not fit: wrong type, out of range, text that is not
        Unicode.
    """
    try:
        return kind(**fields)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentException(f"an argument cannot be sent: {error}") from error


def path_text(path: str | os.PathLike[str]) -> str:
    """A path in the sandbox as text.

    Raises:
        InvalidArgumentException: It is empty, too long, not Unicode, or holds a NUL character.
    """
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise InvalidArgumentException(f"path has to be a str or a path object; got {type(path).__name__}")
    if not text:
        raise InvalidArgumentException('path is empty; "." is the home directory of the user')
    if "\0" in text:
        raise InvalidArgumentException(f"path holds a NUL character: {text!r}")
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise InvalidArgumentException(f"path is not Unicode text: {text!r}") from None
    # What is shorter than the longest name is so everywhere.
    if len(encoded) > _LONGEST_NAME and (
        len(encoded) > _LONGEST_PATH or max(map(len, encoded.split(b"/"))) > _LONGEST_NAME
    ):
        raise InvalidArgumentException(
            f"path is too long: Linux allows {_LONGEST_PATH} bytes, and {_LONGEST_NAME} between slashes"
        )
    return text


def user_name(user: str | None) -> str | None:
    """The name of a user in the sandbox; None is its default user.

    Raises:
        InvalidArgumentException: It cannot be one.
    """
    if user is None:
        return None
    if not isinstance(user, str) or not user.isprintable() or not user or ":" in user:
        raise InvalidArgumentException(f"user has to be the name of a user; got {user!r}")
    return user


@contextmanager
def contract() -> Iterator[None]:
    """Turn what the generated code objects to into errors of the SDK.

    Raises:
        InvalidArgumentException: An argument breaks the contract.
        SandboxException: The service's answer does.
    """
    try:
        yield
    except InvalidResponse as error:
        raise SandboxException(
            f"The service's answer cannot be understood: {error}", status=error.status_code
        ) from None
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        raise InvalidArgumentException("; ".join(problems)) from None
    except ValueError as error:
        raise InvalidArgumentException(str(error)) from error
