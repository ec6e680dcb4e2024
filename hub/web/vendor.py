"""Downloads the vendored files listed in VENDOR.toml again, by `npm pack`: `python -m hub.web.vendor`."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "static" / "vendor"


def named() -> dict[str, dict[str, Any]]:
    """File → package, version, path in the package, licence and hash."""
    return tomllib.loads((FOLDER / "VENDOR.toml").read_text("utf-8"))


def fetch() -> None:
    """Download and write every file; raises ValueError for one whose hash differs from VENDOR.toml."""
    for file, entry in named().items():
        with tempfile.TemporaryDirectory() as folder:
            wanted = f"{entry['package']}@{entry['version']}"
            subprocess.run(["npm", "pack", "--silent", wanted], cwd=folder, check=True, capture_output=True)
            (archive,) = Path(folder).glob("*.tgz")
            content = _member(archive, entry["path"])
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise ValueError(f"{file}: {wanted} differs from its hash in VENDOR.toml")
        (FOLDER / file).write_bytes(content)


def _member(archive: Path, path: str) -> bytes:
    with tarfile.open(archive) as packed:
        found = packed.extractfile(path)
        if found is None:
            raise ValueError(f"{path} is no file in {archive.name}")
        return found.read()


if __name__ == "__main__":
    fetch()
