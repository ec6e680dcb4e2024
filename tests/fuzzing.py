"""How many inputs a fuzz tries of each kind: a sample with every merge, `HUB_FUZZ=100000` by night."""

from __future__ import annotations

import os

VARIABLE = "HUB_FUZZ"


def inputs(sample: int) -> int:
    """So many, unless the environment asks for more or fewer."""
    return int(os.environ.get(VARIABLE) or sample)
