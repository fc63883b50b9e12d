"""A list that the service hands out in pages."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, overload

T = TypeVar("T")

if TYPE_CHECKING:
    Page: TypeAlias = tuple[list[T], str | None]
    """The items of a page, and the token of the next one if there is one."""


class Listing(Sequence[T]):
    """A sequence whose pages are fetched when they are needed, and then kept.

    Iterate over it, index it, take its length (which fetches the rest), or walk it page by page with
    `has_next` and `next_items()`. Threads may share it.

    Args:
        fetch: Gets the page with a token; None is the first page.
        token: Where to start.
    """

    def __init__(self, fetch: Callable[[str | None], Page[T]], token: str | None = None) -> None:
        self._fetch = fetch
        self._token = token
        self._complete = False
        self._items: list[T] = []
        self._page_ends: list[int] = []
        self._pages_taken = 0
        self._fetching = threading.Lock()
        self._owner = os.getpid()

    @property
    def has_next(self) -> bool:
        """Whether `next_items()` has another page to give, as far as is known."""
        return self._pages_taken < len(self._page_ends) or not self._complete

    @property
    def next_token(self) -> str | None:
        """The token of the first page that was not fetched yet; None before the first and after the last."""
        return self._token

    def next_items(self) -> list[T]:
        """The next page; empty when there is none.

        Raises:
            SandboxException: The page could not be fetched.
        """
        if self._pages_taken == len(self._page_ends) and not self._fetch_page(self._pages_taken):
            return []
        start = self._page_ends[self._pages_taken - 1] if self._pages_taken else 0
        page = self._items[start : self._page_ends[self._pages_taken]]
        self._pages_taken += 1
        return page

    def __iter__(self) -> Iterator[T]:
        position = 0
        while position < len(self._items) or self._fetch_page(len(self._page_ends)):
            if position < len(self._items):
                yield self._items[position]
                position += 1

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int) and index >= 0:
            while index >= len(self._items) and self._fetch_page(len(self._page_ends)):
                pass
        else:
            self._fetch_all()
        return self._items[index]

    def __len__(self) -> int:
        self._fetch_all()
        return len(self._items)

    def __bool__(self) -> bool:
        return any(True for _ in self)

    def __repr__(self) -> str:
        return f"<Listing: {len(self._items)} fetched{'' if self._complete else ', more to fetch'}>"

    def _fetch_all(self) -> None:
        while self._fetch_page(len(self._page_ends)):
            pass

    def _fetch_page(self, number: int) -> bool:
        """Fetch a page unless another thread did meanwhile; False if there is none of that number."""
        if self._owner != os.getpid():  # a fork, where it may be held for ever
            self._fetching, self._owner = threading.Lock(), os.getpid()
        with self._fetching:
            if number == len(self._page_ends) and not self._complete:
                items, self._token = self._fetch(self._token)
                self._items.extend(items)
                self._page_ends.append(len(self._items))
                self._complete = self._token is None
            return number < len(self._page_ends)
