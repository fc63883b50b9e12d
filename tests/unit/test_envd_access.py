"""Tokens and signed URLs, as tables."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from sandbox_local.envd.access import check_file_access, check_token, signature
from sandbox_local.http import Body, Headers, HttpError, Request

TOKEN = "envd-token"
NOW = 1_800_000_000.9


def request(method: str, target: str, token: str | None = None) -> Request:
    headers = Headers({} if token is None else {"X-Access-Token": token})
    return Request(method, target, headers, Body())


@pytest.mark.parametrize(
    ("method", "target", "needs_token"),
    [
        ("GET", "/health", False),
        ("GET", "/files?path=x", False),  # these have a check of their own
        ("POST", "/files?path=x", False),
        ("POST", "/health", True),
        ("DELETE", "/files", True),
        ("POST", "/files/compose", True),
        ("GET", "/metrics", True),
        ("GET", "/envs", True),
        ("POST", "/process.Process/Start", True),
        ("POST", "/filesystem.Filesystem/Stat", True),
        ("GET", "/no/such/path", True),
        ("GET", "/files/", True),
        ("GET", "/%66iles", False),
    ],
)
def test_all_paths_but_three_need_the_token(method: str, target: str, needs_token: bool) -> None:
    check_token(request(method, target), None)
    check_token(request(method, target, TOKEN), TOKEN)
    for given in (None, "", "wrong", TOKEN[:-1], TOKEN + "x", "\udcff"):
        if needs_token:
            with pytest.raises(HttpError, match="unauthorized access") as caught:
                check_token(request(method, target, given), TOKEN)
            assert caught.value.status == 401
        else:
            check_token(request(method, target, given), TOKEN)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # Computed with sha256sum and base64, of "/home/user/a.txt:read:user:envd-token" and of
        # "a b:write::envd-token:1800000060".
        (("/home/user/a.txt", "read", "user", TOKEN, None), "v1_WkZNeHM9bj/ThPhHxT+VEVrRQSVYz0iZTNWhVD1mpyc"),
        (("a b", "write", "", TOKEN, 1_800_000_060), "v1_EFya4lPsEHUrJigRcQE37ffpun4XtqAdNGAbTB25YEI"),
    ],
)
def test_a_signature_is_the_hash_of_what_it_allows(
    arguments: tuple[str, str, str, str, int | None], expected: str
) -> None:
    assert signature(*arguments) == expected


def signed(path: str, operation: str, user: str, expiration: int | None = None, token: str = TOKEN) -> str:
    query = {"path": path, "signature": signature(path, operation, user, token, expiration)}
    if user:
        query["username"] = user
    if expiration is not None:
        query["signature_expiration"] = str(expiration)
    return "/files?" + urlencode(query)


@pytest.mark.parametrize(
    "target",
    [
        signed("/a", "read", ""),
        signed("a b+c/é", "read", "root"),
        signed("", "read", ""),
        signed("/a", "read", "", int(NOW)),
        signed("/a", "read", "", int(NOW) + 1),
    ],
)
def test_a_good_signature_stands_for_the_token(target: str) -> None:
    check_file_access(request("GET", target), "read", TOKEN, NOW)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("/files?path=/a", "missing signature query parameter"),
        ("/files?path=/a&signature=", "missing signature query parameter"),
        ("/files?path=/a&signature=v1_x", "invalid signature"),
        (signed("/a", "write", ""), "invalid signature"),
        (signed("/a", "read", "", token="other"), "invalid signature"),
        (signed("/a", "read", "") + "&username=root", "invalid signature"),
        (signed("/a", "read", "").replace("%2Fa", "%2Fb"), "invalid signature"),
        (signed("/a", "read", "") + "&signature_expiration=9999999999", "invalid signature"),
        (signed("/a", "read", "", int(NOW) - 1), "signature is already expired"),
        (signed("/a", "read", "", 0), "signature is already expired"),
        (signed("/a", "read", "", -5), "signature is already expired"),
    ],
)
def test_any_other_signature_is_refused_with_its_reason(target: str, message: str) -> None:
    with pytest.raises(HttpError, match=message) as caught:
        check_file_access(request("GET", target), "read", TOKEN, NOW)
    assert caught.value.status == 401


@pytest.mark.parametrize("expiration", ["soon", "1.5", "1e9", "9" * 100, "٣"])
def test_an_expiration_that_is_no_number_is_a_bad_request(expiration: str) -> None:
    target = f"/files?path=/a&signature=v1_x&signature_expiration={expiration}"
    with pytest.raises(HttpError) as caught:
        check_file_access(request("GET", target), "read", TOKEN, NOW)
    assert caught.value.status == 400


def test_a_token_beats_the_signature() -> None:
    check_file_access(request("GET", "/files?path=/a", TOKEN), "read", TOKEN, NOW)
    with pytest.raises(HttpError, match="access token"):
        check_file_access(request("GET", signed("/a", "read", ""), "wrong"), "read", TOKEN, NOW)
    check_file_access(request("GET", signed("/a", "read", ""), ""), "read", TOKEN, NOW)


def test_an_unsecured_sandbox_asks_for_nothing() -> None:
    check_file_access(request("GET", "/files?path=/a&signature=nonsense", "any"), "read", None, NOW)
