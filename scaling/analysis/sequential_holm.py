"""Holm's procedure at a look of a sequential study, for one family or for many at once (arrays).

Alpha is shared equally by the hypotheses that are not rejected; each is tested with the boundary of its part, and one
that is rejected passes its part on (Maurer & Bretz 2013, Stat Biopharm Res 5:311).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from scaling.analysis.stats import SIGNIFICANCE
from scaling.sequential import SequentialDesign
from scaling.spending import conditional_power, limits_of

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class HypothesisLook:
    """One hypothesis of a family at a look, see `FamilyLook`; chance: conditional power, null at the last look."""

    level: float
    rejected: bool
    crossed: bool
    chance: float | None


@dataclass(frozen=True)
class FamilyLook:
    """A family at a look, shape (..., hypotheses) each: one-sided p, its level, and the z that the last look needs.

    rejected: at this look or an earlier one, which passes alpha on. A verdict needs a p that crosses now. information:
    the share that the look has.
    """

    p: Array
    level: Array
    last: Array
    rejected: Flags
    information: float

    @property
    def crossed(self) -> Flags:
        return self.rejected & (self.p <= self.level)

    @property
    def chance(self) -> Array:
        """Conditional power of a rejection at the last look, if the true effects are those seen. Not at the last."""
        return conditional_power(-special.ndtri(self.p), self.information, self.last)

    def of(self, place: int) -> HypothesisLook:
        """The hypothesis at this place; for a single family."""
        chance = float(self.chance[place]) if self.information < 1 else None
        return HypothesisLook(float(self.level[place]), bool(self.rejected[place]), bool(self.crossed[place]), chance)


def family_at_look(p: Array, already: Flags, design: SequentialDesign, number: int) -> FamilyLook:
    """One look, counted from 1, at p values (one-sided) of shape (..., hypotheses).

    already: rejected at earlier looks. Each side of the design's two-sided alpha is a half of it.
    """
    hypotheses = p.shape[-1]
    by_sharing = [limits_of(design, max(sharing, 1)) for sharing in range(hypotheses + 1)]
    level = special.ndtr(-np.array([limits[number - 1] for limits in by_sharing]))
    last = np.array([limits[-1] for limits in by_sharing])
    order = np.argsort(np.where(already, np.inf, p), axis=-1, kind="stable")
    sharing = np.broadcast_to(1 + (~already).sum(axis=-1, keepdims=True), p.shape).copy()
    rejected = already.copy()
    for place in range(hypotheses):
        this = order[..., place : place + 1]
        waits = ~np.take_along_axis(already, this, -1)
        left = np.where(waits, hypotheses - rejected.sum(axis=-1, keepdims=True), np.take_along_axis(sharing, this, -1))
        np.put_along_axis(sharing, this, left, -1)
        is_below = waits & (np.take_along_axis(p, this, -1) <= level[left])
        np.put_along_axis(rejected, this, np.take_along_axis(rejected, this, -1) | is_below, -1)
    return FamilyLook(p, level[sharing], last[sharing], rejected, design.information[number - 1])


def chance_of_rise(effect: Array, p: Array, information: float) -> Array:
    """Conditional power of a rise that is shown at 5 %, from its effect and two-sided p."""
    z = np.sign(effect) * -special.ndtri(p / 2)
    return conditional_power(z, information, np.asarray(-special.ndtri(SIGNIFICANCE / 2)))
