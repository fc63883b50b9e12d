"""Bringing root file systems in as templates: what is taken, what is refused, what remains of failures."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.live.rootfs import entry, make_archive, make_rootfs, refused, start_template, template

SMALL = ("bash",)


@pytest.fixture(scope="module")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rootfs(tmp_path_factory.mktemp("rootfs"), SMALL)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def builds(store: Path) -> list[Path]:
    return [path for path in store.iterdir() if path.is_dir()]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zst", "directory"])
def test_archives_of_every_compression_and_directories_become_templates(
    rootfs: Path, store: Path, tmp_path: Path, mode: str
) -> None:
    source = rootfs
    if mode != "directory":
        source = make_archive(tmp_path / "archive", rootfs, mode="w" if mode == "zst" else mode)
    if mode == "zst":
        if subprocess.run(["which", "zstd"], check=False, capture_output=True).returncode:
            pytest.skip("the program zstd is not installed")
        subprocess.run(["zstd", "-q", source, "-o", tmp_path / "a.zst"], check=True, timeout=60)
        source = tmp_path / "a.zst"
    assert "one (t" in template(store, "import", "one", source)
    (listed,) = json.loads(template(store, "list", "--json"))
    assert (listed["name"], listed["build_count"]) == ("one", 1)
    assert listed["bytes"] >= (rootfs / "bin/bash").stat().st_size
    assert listed["template_id"] in template(store, "list")
    (build,) = builds(store)
    assert store.stat().st_mode & 0o777 == 0o700
    assert (build / "rootfs/bin/bash").read_bytes() == (rootfs / "bin/bash").read_bytes()
    assert "user:x:1000:1000:" in (build / "rootfs/etc/passwd").read_text()


def test_a_template_is_replaced_as_a_whole_and_deleted(rootfs: Path, store: Path, tmp_path: Path) -> None:
    template(store, "import", "one", rootfs)
    (first,) = json.loads(template(store, "list", "--json"))
    template(store, "import", "one", make_archive(tmp_path / "a", rootfs, entry("new")))
    (second,) = json.loads(template(store, "list", "--json"))
    assert second["template_id"] == first["template_id"]
    assert (second["build_count"], second["created_at"]) == (2, first["created_at"])
    assert [path.name for path in builds(store)] == [second["build_id"]]
    template(store, "delete", "one")
    assert list(store.iterdir()) == []
    assert "there is no template 'one'" in refused(store, "delete", "one")


@pytest.mark.parametrize("name", ["base", "A", "", "-x", "a/b", "../x", "a b", "a" * 64, "x:y", "é"])
def test_names_are_checked(rootfs: Path, store: Path, name: str) -> None:
    said = refused(store, "import", "--", name, rootfs)
    assert "name" in said or "can't be called" in said
    assert not store.exists()


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([entry("../escaped", size=4)], "'..'"),
        ([entry("a/../../escaped", size=4)], "'..'"),
        ([entry("hard", tarfile.LNKTYPE, "../../escaped")], "'..'"),
        ([entry("hard", tarfile.LNKTYPE, "/no/such/file")], "can't be unpacked"),
        ([entry("bomb", size=1 << 40)], "--max-size"),
        ([entry("etc/passwd", tarfile.DIRTYPE)], "/etc/passwd is a directory"),
        ([entry("a" * 300, size=1)], "can't be unpacked"),
        ([entry("bin/bash", tarfile.SYMTYPE, "/no/such/file")], "no /bin/bash"),
        ([entry("bin/bash", tarfile.FIFOTYPE)], "no /bin/bash"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_hostile_archives_are_refused_and_leave_nothing(
    rootfs: Path, store: Path, tmp_path: Path, entries: list[tarfile.TarInfo], said: str
) -> None:
    archive = make_archive(tmp_path / "a", rootfs, *entries)
    assert said in refused(store, "import", "one", archive)
    assert list(store.iterdir()) == []
    assert not (tmp_path / "escaped").exists()


def test_links_and_odd_entries_stay_inside(rootfs: Path, store: Path, tmp_path: Path) -> None:
    """Through a link that leads out, what is written lands in the template's own tree."""
    outside = tmp_path / "outside"
    outside.mkdir()
    target = outside / "file"
    target.write_text("safe")
    archive = make_archive(
        tmp_path / "a",
        rootfs,
        entry(str(target), size=3),
        entry("link", tarfile.SYMTYPE, str(outside)),
        entry("link/file", size=5),
        entry("up", tarfile.SYMTYPE, "../../../../../../../.." + str(outside)),
        entry("up/more", size=5),
        entry("etc/passwd", tarfile.SYMTYPE, str(target)),
        entry("etc/hosts", tarfile.FIFOTYPE),
        entry("small", size=2),
        entry("etc/shadow", tarfile.LNKTYPE, "small"),
        entry("home", tarfile.SYMTYPE, str(outside)),
        entry("root", tarfile.SYMTYPE, str(outside)),
        entry("new\nline", size=1),
        entry("fifo", tarfile.FIFOTYPE),
        entry("dev/null", tarfile.CHRTYPE),
        entry("disk", tarfile.BLKTYPE),
    )
    assert "1 device nodes left out" in template(store, "import", "one", archive)
    assert sorted(os.listdir(outside)) == ["file"]
    assert target.read_text() == "safe"
    (build,) = builds(store)
    inside = build / "rootfs"
    assert (inside / str(target)[1:]).stat().st_size == 5
    assert (inside / str(outside)[1:] / "more").is_file()
    assert (inside / "home").is_dir()
    assert not (inside / "home").is_symlink()
    assert (inside / "etc/passwd").read_text().startswith("root:x:0:0")
    assert (inside / "small").read_text() == "xx"
    assert (inside / "new\nline").is_file()
    assert (inside / "fifo").is_fifo()
    assert not (inside / "disk").exists()
    assert os.listdir(inside / "dev") == []


@pytest.mark.parametrize("cut", [1, 700, 1024, 5000, 1 << 20])
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_archives_that_are_cut_off_are_no_templates(
    rootfs: Path, store: Path, tmp_path: Path, cut: int, mode: str
) -> None:
    archive = make_archive(tmp_path / "a", rootfs, mode=mode)
    if mode == "w":  # fill up the last record, which may be empty
        with tarfile.open(archive) as tar:
            end = max(member.offset_data + member.size for member in tar)
            cut += archive.stat().st_size - end
    elif cut > 700_000:
        cut = 700_000
    os.truncate(archive, archive.stat().st_size - cut)
    said = refused(store, "import", "one", archive)
    assert "damaged" in said or "cut off" in said, said
    assert list(store.iterdir()) == []


def test_sizes_are_bounded(rootfs: Path, store: Path, tmp_path: Path) -> None:
    many = make_archive(tmp_path / "many", rootfs, *(entry(f"f{number}") for number in range(2000)))
    assert "--max-size" in refused(store, "import", "one", many, "--max-size", "9M")
    zeros = make_archive(tmp_path / "zeros", rootfs, entry("zeros", size=20 << 20), mode="w:gz")
    assert "--max-size" in refused(store, "import", "one", zeros, "--max-size", "20M")
    template(store, "import", "one", zeros, "--max-size", "40M")


def test_what_is_no_root_file_system_is_told(store: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no archive" * 100)
    assert "tar archive" in refused(store, "import", "one", tmp_path / "text")
    (tmp_path / "empty").touch()
    assert "tar archive" in refused(store, "import", "one", tmp_path / "empty")
    (tmp_path / "directory").mkdir()
    assert "no /bin/bash" in refused(store, "import", "one", tmp_path / "directory")
    assert "no file or directory" in refused(store, "import", "one", tmp_path / "nothing")
    for kind in ("directory", "archive"):
        layout = tmp_path / f"layout-{kind}"
        layout.mkdir()
        (layout / "oci-layout").write_text("{}")
        source = layout if kind == "directory" else make_archive(tmp_path / "oci.tar", layout)
        assert "docker export" in refused(store, "import", "one", source)
    assert list(store.iterdir()) == []


def test_what_a_killed_import_left_counts_for_nothing_and_goes_with_the_next(
    rootfs: Path, store: Path, tmp_path: Path
) -> None:
    """It is killed while it waits for the rest of what it reads, with most of it unpacked."""
    pipe = tmp_path / "zstd"
    pipe.write_text("#!/bin/sh\ncat; echo waiting >&2; exec sleep 600\n")
    pipe.chmod(0o755)
    archive = make_archive(tmp_path / "a", rootfs)
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) - 20480])
    start = tmp_path / "start"
    start.write_bytes(b"\x28\xb5\x2f\xfd")
    # A stand-in for the decompressor, which passes on what it is told to and then nothing.
    pipe.write_text(f"#!/bin/sh\ncat {archive}; echo waiting >&2; exec sleep 600\n")
    path = f"{tmp_path}:{os.environ['PATH']}"
    with start_template(store, "import", "one", start, environment={"PATH": path}) as importing:
        assert importing.stderr is not None
        assert importing.stderr.readline() == "waiting\n"
        importing.send_signal(signal.SIGKILL)
        importing.wait(30)
        assert importing.stdout is not None
        # Its children end with it: what they held open closes.
        assert select.select([importing.stdout], [], [], 30)[0]
    assert json.loads(template(store, "list", "--json")) == []
    (left,) = builds(store)
    template(store, "import", "one", rootfs)
    assert not left.exists()
    assert len(builds(store)) == 1


def test_a_store_that_others_may_enter_is_refused(rootfs: Path, store: Path) -> None:
    store.mkdir(mode=0o755)
    assert "chmod 700" in refused(store, "import", "one", rootfs)


def test_many_imports_at_once_leave_each_template_whole(rootfs: Path, store: Path) -> None:
    running = [start_template(store, "import", f"t{number % 2}", rootfs) for number in range(6)]
    for process in running:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    template(store, "delete", "t0")
    (left,) = json.loads(template(store, "list", "--json"))
    assert [path.name for path in builds(store)] == [left["build_id"]]
    assert (store / left["build_id"] / "rootfs/bin/bash").exists()


def test_debootstrap_is_refused_with_a_remedy_where_it_cannot_be_had(store: Path, tmp_path: Path) -> None:
    said = refused(store, "build", "one", "--debootstrap", environment={"PATH": str(tmp_path)})
    assert "apt install debootstrap" in said or "as root" in said
