"""How the report writes shares and intervals: in points of a hundred."""

from __future__ import annotations


def points(value: float, sign: bool = False) -> str:
    return f"{100 * value:+.1f}" if sign else f"{100 * value:.1f}"


def ends(pair: tuple[float, float], sign: bool = False) -> str:
    return f"[{points(pair[0], sign)}, {points(pair[1], sign)}]"
