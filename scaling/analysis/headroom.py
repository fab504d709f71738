"""The pilot of headroom: how much there is to win by calls, by votes and by prompts, with intervals.

A prompt is chosen on one half of the rows and scored on the other, and the reverse: the best of several prompts looks
better than it is on the rows that it was chosen on.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scaling.analysis.assumed import SCORE, Truth
from scaling.analysis.pairs import difference
from scaling.analysis.results import Results
from scaling.analysis.stats import Arm, Estimate, contrast, score_interval, share_rows
from scaling.analysis.text import Table, interval_text, percent, table_of
from scaling.planning.headroom import STEPS, VOTES
from scaling.planning.optimizers import NONE
from scaling.types import Cell
from scaling.wordings import OWN, WORDINGS

CALLS, VOTES_WIN, PROMPTS = "calls", "votes", "prompts"
PRIOR_SD = 0.05  # of a headroom before anything is measured: wins of a few points are expected
Kind = tuple[str, int, str]  # pipeline, steps, wording
ONE_CALL: Kind = ("chain", 1, OWN)


@dataclass(frozen=True)
class Win:
    """What a change wins over one call on the same rows. by: calls, votes or prompts; steps: of the program."""

    by: str
    steps: int
    estimate: Estimate


@dataclass(frozen=True)
class Headroom:
    """What there is to win on one benchmark with one model; `one_call` is the score of one call."""

    benchmark: str
    model: str
    one_call: Arm
    wins: tuple[Win, ...]

    def win(self, by: str, steps: int) -> Win | None:
        """The win of this kind at so many steps; None where it was not measured."""
        return next((win for win in self.wins if (win.by, win.steps) == (by, steps)), None)


def headrooms_of(results: Results, cell_ids: Collection[str]) -> list[Headroom]:
    """The headroom of each benchmark and model, from the cells of these ids that have a score."""
    arms: dict[tuple[str, str], dict[Kind, Arm]] = {}
    cells = results.cells[(results.cells["status"] == "ok") & results.cells["cell_id"].isin(list(cell_ids))]
    for key, row in cells.iterrows():
        arm = results.arm([str(key)])
        if arm is not None:
            kind = (row["pipeline"], int(row["steps"]), row["wording"])
            arms.setdefault((row["benchmark"], row["model"]), {})[kind] = arm
    return [Headroom(*name, own[ONE_CALL], tuple(_wins(own))) for name, own in sorted(arms.items()) if ONE_CALL in own]


def _wins(arms: Mapping[Kind, Arm]) -> Iterator[Win]:
    one = arms[ONE_CALL]
    for by, pipeline, numbers in ((CALLS, "chain", STEPS[1:]), (VOTES_WIN, "vote", (VOTES,))):
        for steps in numbers:
            if (arm := arms.get((pipeline, steps, OWN))) is not None:
                yield Win(by, steps, difference(one, arm, {}))
    wordings = [arms["chain", 1, name] for name in WORDINGS if ("chain", 1, name) in arms]
    if len(wordings) > 1:
        yield Win(PROMPTS, 1, contrast([(1.0, best_prompt(wordings))]))


def best_prompt(wordings: Sequence[Arm]) -> Arm:
    """What the best of the wordings wins over the first on each row that all have, scores (n, 1).

    The best is chosen on the other half of the rows. Halves are by group, in an order that no score has a part in.
    """
    shared, _ = share_rows([(1.0, arm) for arm in wordings])
    scores = np.column_stack([arm.item_means for _, arm in shared])
    first = shared[0][1]
    in_half = _halves(first.groups)
    won = np.empty(len(scores))
    for half in (in_half, ~in_half):
        chosen = int(scores[~half].mean(axis=0).argmax()) if (~half).any() else 0
        won[half] = scores[half, chosen] - scores[half, 0]
    return Arm(first.benchmark, NONE.name, first.items, first.groups, won[:, None])


def _halves(groups: np.ndarray) -> np.ndarray:
    """Whether each row is in the first half, shape (n,): every second group in the order of their digests."""
    order = sorted(set(groups.tolist()), key=lambda name: hashlib.sha256(str(name).encode()).hexdigest())
    return np.isin(groups, order[::2])


def truth_of(headrooms: Sequence[Headroom], rng: np.random.Generator) -> Truth:
    """Expected scores of a study's cells, drawn from what the pilot leaves open.

    A win is normal around the measured one, shrunk towards 0 as by a normal prior with `PRIOR_SD`. An optimizer wins
    what the prompts win. Steps that the pilot lacks lie between their neighbours.
    """
    drawn = {(h.benchmark, h.model): (h.one_call.mean, _drawn_wins(h, rng)) for h in headrooms}

    def truth(cell: Cell, program: str) -> float:
        one, wins = drawn.get((cell.benchmark, cell.model), (SCORE, {}))
        by = VOTES_WIN if cell.pipeline == "vote" else CALLS
        known = {1: 0.0} | {steps: win for (kind, steps), win in wins.items() if kind == by}
        calls = float(np.interp(cell.steps, sorted(known), [known[steps] for steps in sorted(known)]))
        return one + calls + (0.0 if program == "baseline" else wins.get((PROMPTS, 1), 0.0))

    return truth


def _drawn_wins(headroom: Headroom, rng: np.random.Generator) -> dict[tuple[str, int], float]:
    drawn = {}
    for win in headroom.wins:
        effect, se = win.estimate.effect, win.estimate.se
        if not math.isnan(effect):
            kept = PRIOR_SD**2 / (PRIOR_SD**2 + se**2)
            drawn[win.by, win.steps] = rng.normal(kept * effect, math.sqrt(kept) * se)
    return drawn


def headroom_table(headrooms: Sequence[Headroom]) -> Table:
    """A row for each benchmark and model."""
    note = (
        "Points over one call on the same rows, with 95 % intervals. Prompts: the best of "
        f"{len(WORDINGS)} wordings, chosen on one half of the rows and scored on the other. A pilot: no result."
    )
    return table_of("Headroom", note, map(_row, headrooms))


def _row(headroom: Headroom) -> dict[str, str]:
    one = headroom.one_call
    shown = [(f"{steps} calls", (CALLS, steps)) for steps in STEPS[1:]]
    shown += [(f"{VOTES} votes", (VOTES_WIN, VOTES)), ("prompts", (PROMPTS, 1))]
    interval = score_interval(one, {}) or (math.nan, math.nan)
    return {
        "benchmark": headroom.benchmark,
        "model": headroom.model,
        "rows": str(len(one.items)),
        "one call": f"{percent(one.mean)} {interval_text(*interval)}",
    } | {name: _won(headroom.win(*which)) for name, which in shown}


def _won(win: Win | None) -> str:
    if win is None:
        return "not run"
    e = win.estimate
    if math.isnan(e.low):
        return f"{percent(e.effect, sign=True)} (no variation)"
    return f"{percent(e.effect, sign=True)} {interval_text(e.low, e.high, sign=True)}"
