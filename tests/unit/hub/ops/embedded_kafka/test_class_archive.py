from __future__ import annotations

import os
from pathlib import Path

import pytest

from hub.ops.embedded_kafka.server import ClassArchive, publish


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    file = tmp_path / "a.jar"
    file.write_bytes(b"jar")
    return file


@pytest.fixture
def archive(tmp_path: Path, jar: Path) -> ClassArchive:
    return ClassArchive.of("25", [jar], tmp_path, tmp_path / "draft")


def test_the_first_start_makes_it(archive: ClassArchive) -> None:
    archive.base.touch()
    assert archive.use_or_make() == [
        f"-XX:SharedArchiveFile={archive.base}",
        f"-XX:ArchiveClassesAtExit={archive.draft}",
    ]


def test_later_starts_use_it(archive: ClassArchive) -> None:
    archive.base.touch()
    archive.draft.write_bytes(b"classes")
    archive.keep()
    assert not archive.draft.exists()
    assert archive.use_or_make() == archive.use() == [f"-XX:SharedArchiveFile={archive.base}:{archive.classes}"]


def test_nothing_to_use(archive: ClassArchive) -> None:
    assert archive.use() == []


def test_a_broker_that_wrote_none_leaves_none(archive: ClassArchive) -> None:
    archive.keep()
    assert not archive.classes.exists()


def test_a_jar_that_was_fetched_again_gets_a_new_archive(archive: ClassArchive, jar: Path, tmp_path: Path) -> None:
    os.utime(jar, ns=(1, 1))
    assert ClassArchive.of("25", [jar], tmp_path, tmp_path / "draft").classes != archive.classes


def test_another_java_gets_its_own(archive: ClassArchive, jar: Path, tmp_path: Path) -> None:
    other = ClassArchive.of("26", [jar], tmp_path, tmp_path / "draft")
    assert {other.base, other.classes}.isdisjoint({archive.base, archive.classes})


def test_publishing_replaces(tmp_path: Path) -> None:
    (tmp_path / "draft").write_bytes(b"new")
    (tmp_path / "target").write_bytes(b"old")
    publish(tmp_path / "draft", tmp_path / "target")
    assert [file.name for file in tmp_path.iterdir()] == ["target"]
    assert (tmp_path / "target").read_bytes() == b"new"
