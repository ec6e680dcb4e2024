"""What is vendored is what its makers published."""

from __future__ import annotations

import hashlib

from hub.web.vendor import FOLDER, named


def test_every_file_is_named_with_its_hash_and_licence() -> None:
    files = {file.name for file in FOLDER.iterdir() if file.name != "VENDOR.toml"}
    assert files == set(named())
    for file, entry in named().items():
        assert hashlib.sha256((FOLDER / file).read_bytes()).hexdigest() == entry["sha256"], file
        assert entry["licence"] in ("MIT", "0BSD", "Apache-2.0")
