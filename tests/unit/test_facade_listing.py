"""The lazy list behind `Sandbox.list()`."""

from __future__ import annotations

import threading

import pytest

from sandbox_sync.listing import Listing


class Pages:
    """A service with pages of numbers; counts what is asked of it."""

    def __init__(self, *pages: list[int]) -> None:
        self.pages = pages
        self.asked: list[str | None] = []

    def __call__(self, token: str | None) -> tuple[list[int], str | None]:
        self.asked.append(token)
        number = int(token or 0)
        return list(self.pages[number]), str(number + 1) if number + 1 < len(self.pages) else None


def test_nothing_is_fetched_before_it_is_needed() -> None:
    pages = Pages([1, 2], [3, 4], [5])
    listing = Listing(pages)
    assert pages.asked == []
    assert listing[1] == 2
    assert pages.asked == [None]
    assert next(iter(listing)) == 1
    assert pages.asked == [None]
    assert listing[2] == 3
    assert pages.asked == [None, "1"]


def test_it_is_a_sequence() -> None:
    listing = Listing(Pages([1, 2], [3, 4], [5]))
    assert list(listing) == list(listing) == [1, 2, 3, 4, 5]
    assert len(listing) == 5
    assert listing[-1] == 5
    assert listing[1:4] == [2, 3, 4]
    assert 4 in listing
    assert listing.index(5) == 4
    assert list(reversed(listing)) == [5, 4, 3, 2, 1]
    with pytest.raises(IndexError):
        listing[5]


def test_truth_needs_no_more_than_one_item() -> None:
    pages = Pages([1], [2])
    assert Listing(pages)
    assert pages.asked == [None]
    assert not Listing(Pages([]))


def test_pages_can_be_walked() -> None:
    pages = Pages([1, 2], [], [3])
    listing = Listing(pages)
    walked = []
    while listing.has_next:
        walked.append(listing.next_items())
    assert walked == [[1, 2], [], [3]]
    assert listing.next_items() == []
    assert listing.next_token is None
    assert pages.asked == [None, "1", "2"]


def test_walking_pages_and_iterating_share_what_was_fetched() -> None:
    pages = Pages([1, 2], [3])
    listing = Listing(pages)
    assert list(listing) == [1, 2, 3]
    assert listing.has_next
    assert listing.next_items() == [1, 2]
    assert listing.next_items() == [3]
    assert not listing.has_next
    assert pages.asked == [None, "1"]


def test_it_starts_at_a_token_and_tells_the_next() -> None:
    listing = Listing(Pages([1], [2], [3]), "1")
    assert listing.next_items() == [2]
    assert listing.next_token == "2"
    assert list(listing) == [2, 3]


def test_a_page_that_fails_can_be_tried_again() -> None:
    pages = Pages([1], [2])
    failures = [OSError("once")]

    def fetch(token: str | None) -> tuple[list[int], str | None]:
        if token == "1" and failures:
            raise failures.pop()
        return pages(token)

    listing = Listing(fetch)
    with pytest.raises(OSError, match="once"):
        list(listing)
    assert list(listing) == [1, 2]


def test_threads_that_share_it_fetch_each_page_once() -> None:
    pages = Pages(*([n] for n in range(50)))
    listing = Listing(pages)
    seen: list[list[int]] = []
    threads = [threading.Thread(target=lambda: seen.append(list(listing))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert seen == [list(range(50))] * 8
    assert len(pages.asked) == 50
