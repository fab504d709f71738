"""What befalls requests at random."""

from __future__ import annotations

import random
from collections.abc import Callable


def mixed_faults(seed: int) -> Callable:
    """5 % 429, 3 % 500, 502 and 504, 2 % hang, 2 % cut, 2 % garbage, drawn for each received request."""
    rng = random.Random(seed)

    def fault(n: int, body: dict) -> tuple | None:
        x = rng.random()
        for limit, what in (
            (0.05, ("status", 429, {"Retry-After": "0"})), (0.06, ("status", 500)), (0.07, ("status", 502)),
            (0.08, ("status", 504)), (0.10, ("hang", 3.0)),
            (0.12, ("cut",)), (0.14, ("garbage",)),
        ):  # fmt: skip
            if x < limit:
                return what
        return None

    return fault
