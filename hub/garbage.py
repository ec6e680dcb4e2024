"""Python's search for garbage in cycles, set for programs that make many values an instant and hardly a cycle among them."""

from __future__ import annotations

import gc


def collect_seldom() -> None:
    """Look less often, and never among what is loaded by now: that lives as long as the program."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
