"""The state file: complete at once, private, held by one server at a time, never left to mislead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sandbox_local.statefile import StateFile, StateFileHeld
from tests.descriptors import none_left_open

STATE = {"url": "http://127.0.0.1:1", "api_key": "key", "pid": 1, "version": "1"}


def test_it_is_complete_private_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    held = StateFile.write(path, STATE)
    assert json.loads(path.read_text()) == STATE
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["server.json"]
    held.remove()
    assert os.listdir(tmp_path) == []


def test_a_second_server_is_refused_while_the_first_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    held = StateFile.write(path, STATE)
    with pytest.raises(StateFileHeld, match=r"server\.json"):
        StateFile.write(path, {**STATE, "pid": 2})
    assert json.loads(path.read_text()) == STATE
    assert os.listdir(tmp_path) == ["server.json"]
    held.remove()
    StateFile.write(path, {**STATE, "pid": 2}).remove()


def test_what_a_killed_server_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    script = (
        "import os, pathlib, sys; from sandbox_local.statefile import StateFile;"
        "StateFile.write(pathlib.Path(sys.argv[1]), {}); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(path)], timeout=30, check=False).returncode == -9
    assert path.exists()
    held = StateFile.write(path, STATE)
    assert json.loads(path.read_text()) == STATE
    held.remove()


def test_removing_leaves_the_file_of_another(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    held = StateFile.write(path, STATE)
    path.unlink()
    other = StateFile.write(path, {**STATE, "pid": 2})
    held.remove()
    assert json.loads(path.read_text())["pid"] == 2
    other.remove()


def test_of_many_that_write_at_once_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    for _ in range(20):
        path.write_text("abandoned")
        won = race(path, 8)
        assert len(won) == 1
        assert json.loads(path.read_text()) == STATE
        won[0].remove()
    assert os.listdir(tmp_path) == []


def race(path: Path, racers: int) -> list[StateFile]:
    won: list[StateFile] = []
    together = threading.Barrier(racers)

    def write() -> None:
        together.wait(10)
        try:
            won.append(StateFile.write(path, STATE))
        except StateFileHeld:
            pass

    threads = [threading.Thread(target=write) for _ in range(racers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return won


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    path = tmp_path / "server.json"
    with none_left_open():
        held = StateFile.write(path, STATE)
        for _ in range(5):
            with pytest.raises(StateFileHeld):
                StateFile.write(path, STATE)
        held.remove()
        with pytest.raises(FileNotFoundError):
            StateFile.write(tmp_path / "missing" / "server.json", STATE)
