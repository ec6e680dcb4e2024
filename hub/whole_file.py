"""Writing a file whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(file: Path, content: bytes) -> None:
    """Put this in the place of what the file says; a reader sees the one or the other. Raises OSError.

    Several programs may write it at once: each writes a draft of its own, and the last one's stays.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(f".{os.getpid()}.new")
    draft.write_bytes(content)
    draft.replace(file)
