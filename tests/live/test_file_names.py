"""Every name that Linux allows, through every call that takes a path."""

from __future__ import annotations

import json

import pytest

from sandbox_sync import FileType, Sandbox

NAMES = {
    "space": "with space",
    "spaces around": " around ",
    "Unicode": "\u00fcml\u00e4ut \u20ac \U0001f600",
    "combining": "e\u0301",
    "double quote": 'quo"te',
    "single quote": "quo'te",
    "backslash": "back\\slash",
    "backslash and quote": '\\"',
    "percent": "100%",
    "percent-encoded": "per%20cent",
    "percent-encoded quote": "100%22",
    "percent-encoded line feed": "a%0Ab",
    "plus": "a+b",
    "query": "a&b=c?d#e;f",
    "leading dash": "-rf",
    "tilde": "~",
    "tilde and name": "~user",
    "three dots": "...",
    "hidden": ".hidden",
    "colon": "C:",
    "shell": "$HOME `id` *?[a] <>|!",
    "line feed": "new\nline",
    "carriage return": "cr\r\nlf\r",
    "tab": "\ttab",
    "control characters": "\x01\x1b\x7f\x80",
    "header": 'x"\r\nx-other: y',
    "boundary": "--boundary--",
    "255 bytes": "x" * 255,
    "255 bytes of Unicode": "\u00fc" * 127 + "x",
}

# What the sandbox itself sees, whatever the API says.
LIST = "python3 -c 'import json, os; print(json.dumps(sorted(os.listdir())))'"


def seen(sandbox: Sandbox, path: str) -> list[str]:
    return [*json.loads(sandbox.commands.run(LIST, cwd=path).stdout)]


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_any_name_will_do(sandbox: Sandbox, name: str) -> None:
    files = sandbox.files
    files.make_dir("place")
    place = "/home/user/place"
    path = f"place/{name}"

    written = files.write(path, "1")
    assert (written.name, written.path) == (name, f"{place}/{name}")
    assert files.read(path) == "1"
    assert seen(sandbox, place) == [name]

    (first, second) = files.write_files([{"path": path, "data": "2"}, {"path": "place/0", "data": "3"}])
    assert (first.name, first.path, second.name) == (name, f"{place}/{name}", "0")
    assert files.read(path, format="bytes") == b"2"
    with files.read(path, format="stream") as stream:
        assert stream.read() == b"2"
    assert files.read("place/0") == "3"
    files.remove("place/0")

    (entry,) = files.list("place")
    assert (entry.name, entry.path) == (name, f"{place}/{name}")
    assert files.get_info(path) == entry
    assert files.exists(path)

    assert files.rename(path, "place/1").name == "1"
    assert not files.exists(path)
    assert files.rename("place/1", path) == entry
    files.remove(path)
    assert not files.exists(path)
    assert seen(sandbox, place) == []

    assert files.make_dir(path) is True
    assert files.make_dir(path) is False
    files.write(f"{path}/{name}", "4")
    assert [(entry.name, entry.type) for entry in files.list(path)] == [(name, FileType.FILE)]
    assert [entry.path for entry in files.list("place", depth=2)] == [
        f"{place}/{name}",
        f"{place}/{name}/{name}",
    ]
    files.rename(path, f"{path[:-1]}_")
    files.remove(f"{path[:-1]}_")
    assert seen(sandbox, place) == []


def test_names_that_begin_with_a_tilde_are_not_the_home_directory(sandbox: Sandbox) -> None:
    sandbox.files.write("./~", "file")
    sandbox.files.write([{"path": "./~other", "data": "another"}])
    assert sandbox.files.read("/home/user/~") == "file"
    assert sandbox.files.read("./~other") == "another"
    assert sandbox.files.get_info("~").type is FileType.DIR
    assert sandbox.files.get_info("~/~").name == "~"


def test_paths_are_made_simple(sandbox: Sandbox) -> None:
    sandbox.files.write("a/./b/../c//d", "x")
    assert sandbox.files.get_info("a/c/d").path == "/home/user/a/c/d"
    assert sandbox.files.read("/home/../home/user/a/c/d") == "x"


def test_names_that_are_no_text_are_shown_with_replacement_characters(sandbox: Sandbox) -> None:
    sandbox.commands.run(r"touch $'bad\xff' good")
    names = [entry.name for entry in sandbox.files.list(".") if not entry.name.startswith(".")]
    assert names == ["bad\ufffd", "good"]
