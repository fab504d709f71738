"""H1 to H4 as they are judged: false verdicts on nulls and partial nulls, no variation, and power."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from scaling.analysis.hypotheses import SMALLEST, Grid, judge
from scaling.analysis.test_rows import TestRow
from scaling.analysis.verdicts import CANNOT_TELL, CONTRADICTED, SUPPORTED
from simulations.data import BENCHMARKS, GRID, Arms, Means, arms, uneven, without_rows
from simulations.outcome import Outcome, at_most, never, share

NAMES = tuple(SMALLEST)
DEFAULT_ROWS = {"alpha": 500, "beta": 153, "gamma": 500}  # of the default study


def planted(name: str, effect: float) -> Means:
    """Means with this effect on one hypothesis and none on the others (H2's knee is a rise, so H1 has twice it)."""
    means = dict.fromkeys(GRID, 0.7)
    for benchmark, optimizer, steps in GRID:
        later = {1: 0.0, 3: 0.5, 5: 1.0}[steps]
        means[benchmark, optimizer, steps] += (
            effect
            * {
                "H1": later,
                "H2": 0.0 if steps == 1 else 2.0,
                "H3": (0.5 if optimizer == "gepa" else -0.5) * later,
                "H4": (2 / 3 if benchmark == "gamma" else -1 / 3) * later,
                "": 0.0,
            }[name]
        )
    return means


def judged(rng: np.random.Generator, means: Means, repeats: int, **setting: object) -> Iterator[list[TestRow]]:
    """The four rows of each repeat; the default setting is 200 rows, 3 runs and a run sd of 2 points."""
    for _ in range(repeats):
        cells = arms(rng, means, **({"items": 200, "runs": 3, "run_sd": 0.02} | setting))  # type: ignore[arg-type]
        yield judge(Grid(cells, BENCHMARKS))


def false_verdicts(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """Any 'supported' where nothing happens; 'contradicted' where the smallest effect of interest is true."""
    settings = {"run sd 0": 0.0, "run sd 2": 0.02} | {
        f"run sd {name}": sds for name, sds in uneven(np.random.default_rng(2)).items()
    }
    for name, sds in settings.items():
        rows = judged(rng, planted("", 0.0), 2 * repeats, run_sd=sds)
        yield at_most(f"any false 'supported', {name}", [_any(four, NAMES) for four in rows], 0.05)
    for name in NAMES:
        rows = judged(rng, planted(name, SMALLEST[name]), repeats)
        denied = [four[NAMES.index(name)].verdict == CONTRADICTED for four in rows]
        yield at_most(f"{name} called contradicted at its smallest effect of interest", denied, 0.025)


def partial_nulls(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """One hypothesis true with 5 points, any false 'supported' among the others."""
    for name in NAMES:
        others = tuple(other for other in NAMES if other not in ((name, "H1") if name == "H2" else (name,)))
        rows = judged(rng, planted(name, 0.05), 2 * repeats)
        yield at_most(f"any false 'supported' where {name} is true", [_any(four, others) for four in rows], 0.05)


def no_variation(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """Where nothing varies, rounding decides nothing; where there are too few rows, nobody does."""
    constant = lambda cells: {k: replace(a, scores=np.full(a.scores.shape, 0.37)) for k, a in cells.items()}  # noqa: E731
    unchanged = lambda cells: {(b, o, k): replace(cells[b, "gepa", k], optimizer=o) for b, o, k in cells}  # noqa: E731
    cases: dict[str, tuple[Callable[[Arms], Arms], int, tuple[str, ...]]] = {
        "all scores equal": (constant, 200, NAMES),
        "the same answers in all cells and runs": (_same_answers, 200, NAMES),
        "programs always unchanged (H3)": (unchanged, 200, ("H3",)),
        "one row": (lambda cells: cells, 1, NAMES),
        "nine rows": (lambda cells: cells, 9, NAMES),
    }
    for name, (change, items, asked) in cases.items():
        decided = []
        for _ in range(repeats):
            cells = change(arms(rng, planted("", 0.0), items, 3, 0.02))
            four = judge(Grid(cells, BENCHMARKS))
            decided.append(any(four[NAMES.index(h)].verdict != CANNOT_TELL for h in asked))
        yield never(f"a verdict from no variation: {name}", decided)


def cut_files(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """An arm that lost more than 2 % of its rows, the hard ones at the end of a file: nothing is compared."""
    decided = []
    for _ in range(repeats):
        cells = arms(rng, planted("", 0.0), 200, 3, 0.02)
        arm = cells["gamma", "gepa", 5]
        lost = np.zeros(200, dtype=bool)
        lost[np.argsort(arm.item_means)[:40]] = True
        four = judge(Grid(cells | {("gamma", "gepa", 5): without_rows(arm, lost)}, BENCHMARKS))
        decided.append(four[0].verdict != CANNOT_TELL or not four[0].reason.startswith("not compared"))
    yield never("a verdict from a file that was cut", decided)


def power(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """The power found at the effect that is printed as shown with 80 % power, Holm included."""
    slack = 0 if repeats >= 1000 else 22
    for name in NAMES:
        place = NAMES.index(name)
        printed = [four[place].detectable or np.nan for four in judged(rng, planted("", 0.0), max(20, repeats // 5))]
        effect = float(np.median(printed))
        rows = judged(rng, planted(name, effect), repeats)
        shown = share([four[place].verdict == SUPPORTED for four in rows])
        what = f"{name} shown where {100 * effect:.1f} points are true, printed as 80 % power"
        yield Outcome(what, shown, 74 - slack, 88 + slack)


def default_study(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """Chances of the default study (500, 153 and 500 rows, 3 runs, run sd 2); plan.txt, section 11, quotes them.

    Accepted is what lies between these item models and those of an outside check, which had less power.
    """
    slack = 0 if repeats >= 1000 else 20
    for name, effect, low, high in (
        ("H1", 0.05, 94, 100), ("H1", 0.03, 48, 74), ("H2", 0.03, 68, 90), ("H3", 0.05, 33, 53), ("H3", 0.07, 60, 86),
        ("H4", 0.05, 28, 51), ("H4", 0.07, 58, 86),
    ):  # fmt: skip
        means = planted(name, effect)
        shown = []
        for _ in range(repeats):
            cells: Arms = {}
            for benchmark, items in DEFAULT_ROWS.items():
                cells |= arms(rng, {k: q for k, q in means.items() if k[0] == benchmark}, items, 3, 0.02)
            shown.append(judge(Grid(cells, BENCHMARKS))[NAMES.index(name)].verdict == SUPPORTED)
        what = f"default study: {name} shown where {100 * effect:g} points are true"
        yield Outcome(what, share(shown), low - slack, min(100, high + slack))


def _any(four: list[TestRow], names: tuple[str, ...]) -> bool:
    return any(four[NAMES.index(name)].verdict == SUPPORTED for name in names)


def _same_answers(cells: Arms) -> Arms:
    """Every cell and run of a benchmark answers as its first cell's first run."""
    first = {benchmark: cells[benchmark, "gepa", 1].scores[:, :1] for benchmark in BENCHMARKS}
    return {key: replace(arm, scores=np.repeat(first[key[0]], 3, axis=1)) for key, arm in cells.items()}
