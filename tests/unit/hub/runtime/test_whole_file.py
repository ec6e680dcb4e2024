"""A file is written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.runtime.files import write_atomically


def test_a_file_is_made_with_its_folder_and_written_over(tmp_path: Path) -> None:
    file = tmp_path / "new" / "told.json"
    for content in (b"one", b"two"):
        write_atomically(file, content)
        assert file.read_bytes() == content
    assert list(file.parent.iterdir()) == [file], "no draft is left"


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "told.json"
    write_atomically(file, b"one")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(file, b"two")
    assert file.read_bytes() == b"one"
