"""One function a row of STATISTICS.md, section 8: repeats -> what was observed, and what is accepted.

Accepted is the 99.9 % band of the binomial around the target for as many repeats, so that a right procedure fails
one time in a thousand; error rates have an upper limit only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats as distributions
from statsmodels.stats.proportion import proportion_confint

from scaling.analysis.fits import families, power_law, shape_label, size_line, zero_set
from scaling.analysis.hypotheses import Grid, judge
from scaling.analysis.self_correction import correction, labels
from scaling.analysis.stats import (
    SIGNIFICANCE,
    Arm,
    adoption_p,
    bands,
    contrast,
    covariance,
    midp_mcnemar,
    run_variances,
    score_interval,
)
from scaling.intervals import newcombe_paired
from simulations.data import arms, gains

BENCHMARKS = {"alpha": "classification", "beta": "classification", "gamma": "reasoning"}
SIZES = {5: (1.0, 3.0, 8.0, 20.0, 70.0), 7: (0.5, 1.0, 2.0, 4.0, 9.0, 20.0, 40.0)}


@dataclass(frozen=True)
class Outcome:
    """What a simulation observed, in per cent (or points), and the range that is accepted."""

    what: str
    observed: float
    low: float
    high: float

    @property
    def passed(self) -> bool:
        return self.low <= self.observed <= self.high


def band(target: float, repeats: int, upper_only: bool = False) -> tuple[float, float]:
    """99.9 % band in per cent of a share `target` seen in `repeats`."""
    low, high = distributions.binom.ppf((0.0005, 0.9995), repeats, target) * 100 / repeats
    return (0.0, high) if upper_only else (low, high)


def covered(what: str, hits: list[float] | list[bool], target: float = 0.95) -> Outcome:
    return Outcome(what, 100 * float(np.mean(hits)), *band(target, len(hits)))


def at_most(what: str, hits: list[bool], target: float) -> Outcome:
    return Outcome(what, 100 * float(np.mean(hits)), *band(target, len(hits), upper_only=True))


def wilson(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """Coverage by enumeration, no chance in it."""
    grid = np.arange(0.05, 0.951, 0.01)
    for n in (20, 50, 100, 500):
        k = np.arange(n + 1)
        low, high = proportion_confint(k, n, method="wilson")
        share = [float(distributions.binom.pmf(k, n, p)[(low <= p) & (p <= high)].sum()) for p in grid]
        yield Outcome(f"Wilson, n = {n}: worst of p 0.05 to 0.95", 100 * min(share), 91.7 if n < 50 else 92.5, 100)
        if n >= 50:
            yield Outcome(f"Wilson, n = {n}: mean coverage", 100 * float(np.mean(share)), 94.5, 95.5)


def newcombe(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    for n, means in ((50, (0.7, 0.7)), (50, (0.95, 0.9)), (200, (0.6, 0.7)), (500, (0.9, 0.92))):
        hits = []
        for _ in range(repeats):
            one, two = _pair(rng, means, n)
            low, high = newcombe_paired(one, two)
            hits.append(low <= means[1] - means[0] <= high)
        low, _ = band(0.94, repeats)
        yield Outcome(f"Newcombe pair, n = {n}, means {means}", 100 * float(np.mean(hits)), low, 100)


def mcnemar(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    for n, p in ((20, 0.5), (100, 0.7), (300, 0.9)):
        hits = [midp_mcnemar(*_pair(rng, (p, p), n)) < SIGNIFICANCE for _ in range(max(repeats, 10 * repeats))]
        yield Outcome(f"mid-p McNemar on null, n = {n}", 100 * float(np.mean(hits)), 0,
                      max(5.5, band(0.05, len(hits), True)[1]))  # fmt: skip


def contrasts(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """Pair, pooled, interaction and one benchmark, under every spread of runs; groups, F1, `none`, unequal runs."""
    settings = [
        (f"R = {r}, N = {n}, run sd {sds}", {"runs": r, "items": n, "run_sd": _sds(*sds)})
        for r in (2, 3, 5)
        for n in (100, 500)
        for sds in ((0, 0), (2, 2), (1, 5))
    ]
    plain = {"items": 200, "runs": 3, "run_sd": _sds(2, 2)}
    settings += [
        ("groups of 3", plain | {"group_size": 3}),
        ("F1 scores", plain | {"partial": True}),
        ("effects of the deal", plain | {"deal_sd": 0.015}),
        ("unequal runs", plain | {"runs": {(b, o, k): 2 + (k + len(o)) % 3 for b, o, k in _means()}}),
    ]
    each = []
    for name, setting in settings:
        hits: list[float] = []
        for _ in range(max(25, repeats // 2)):
            found = arms(rng, _means(), **setting)
            between = run_variances(list(found.values()))
            hits.append(float(np.mean([_holds(found, parts, between) for parts in _CONTRASTS.values()])))
        each.append(100 * float(np.mean(hits)))
        yield covered(f"contrasts (four): {name}", hits)
    yield (
        Outcome("contrast: mean over all", float(np.mean(each)), 94, 96)
        if repeats >= 1000
        else Outcome("contrast: mean over all", float(np.mean(each)), 93, 97)
    )
    hits = []
    for _ in range(repeats):
        found = arms(rng, {("alpha", "none", 1): 0.6, ("alpha", "gepa", 1): 0.7}, 200, 3, _sds(2, 2))
        base, final = found.values()
        one = contrast([(-1.0, base), (1.0, final)], run_variances([final]))
        hits.append(one.low <= 0.1 <= one.high)
    yield covered("contrast: against a program without an optimizer", hits)


def scores(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    for q, sd in ((0.7, 0), (0.7, 2), (0.9, 2)):
        hits = []
        for _ in range(repeats):
            found = arms(rng, {("alpha", "gepa", k): q for k in (1, 3, 5)}, 200, 3, _sds(sd, sd))
            low, high = score_interval(found["alpha", "gepa", 1], run_variances(list(found.values())))
            hits.append(low <= q <= high)
        yield covered(f"one cell's score, R = 3, q = {q}, run sd {sd}", hits)


def hypotheses(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """The chance of any 'supported' where nothing happens."""
    for sd in (0, 2):
        false = []
        for _ in range(2 * repeats):
            flat = {key: 0.7 for key in _means()}
            found = arms(rng, flat, 200, 3, _sds(sd, sd))
            rows = judge(Grid(found, BENCHMARKS))
            false.append(any(row["verdict"] == "supported" for row in rows))
        limit = max(6.5, band(0.05, len(false), True)[1])
        yield Outcome(f"any false 'supported', run sd {sd}", 100 * float(np.mean(false)), 0, limit)


def shapes(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    steps = np.arange(1, 6)
    truths = {
        "log": 0.6 + 0.05 * np.log2(steps),
        "saturating": 0.75 - 0.15 * np.exp(-0.9 * (steps - 1)),
        "peaked": 0.6 + 0.12 * np.log2(steps) - 0.05 * np.log2(steps) ** 2,
        "flat": np.full(5, 0.7),
    }
    for name, truth in truths.items():
        inside, other_shape = [], []
        for _ in range(repeats):
            means = {("alpha", o, int(k)): q for o in ("gepa", "mipro") for k, q in zip(steps, truth, strict=True)}
            found = arms(rng, means, 300, 3, _sds(2, 2))
            between = run_variances(list(found.values()))
            mine = [found["alpha", "gepa", int(k)] for k in steps]
            ends = contrast([(1.0, mine[-1]), (-1.0, mine[0])], between)
            fitted = families(steps, [arm.mean for arm in mine], covariance(mine, between), ends.df)
            inside.append(not next(f for f in fitted if f.name == name).rejected)
            early = contrast([(1.0, mine[2]), (-1.0, mine[0])], between)
            late = contrast([(1.0, mine[4]), (-1.0, mine[2])], between)
            other_shape.append(shape_label(early, late) != "flat not rejected")
        yield covered(f"family set holds the truth: {name}", inside)
        if name == "flat":
            yield at_most("flat curve given another shape", other_shape, 0.05)


def sizes(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    for m, s in SIZES.items():
        size = np.array(s)
        for scatter in (0.0, 0.01):
            in_alpha, in_slope, in_threshold = [], [], []
            for _ in range(repeats):
                gain, _ = gains(rng, 0.03 * size**0.3, 500, scatter)
                law = power_law(size, gain)
                in_alpha.append(law.low <= 0.3 <= law.high)
                x = np.log10(size)
                gain, variance = gains(rng, 0.03 * (x - 0.7), 500, scatter)
                line = size_line(size, gain, variance)
                low, high = line.slope_interval
                in_slope.append(low <= 0.03 <= high)
                parts = zero_set(line, -1.0, 3.0)
                in_threshold.append(any(low <= 0.7 <= high for low, high in parts))
            where = f"m = {m}, scatter {100 * scatter:g} points"
            yield covered(f"alpha set, {where}", in_alpha)
            yield covered(f"slope, {where}", in_slope)
            yield covered(f"threshold set, {where}", in_threshold)


def exponents(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    size = np.array(SIZES[7])

    def printed(truth: np.ndarray, items: int) -> list[bool]:
        return [not power_law(size, gains(rng, truth, items, 0.0)[0]).refused for _ in range(repeats)]

    slack = 0 if repeats >= 1000 else 4  # percentage points, for the smaller runs in the tests
    yield Outcome("exponent on a flat gain of 3", _share(printed(np.full(7, 0.03), 500)), 0, 7.4 + slack)
    yield Outcome("exponent on no gain", _share(printed(np.zeros(7), 500)), 0, 2.0 + slack)
    grows = 0.03 * size**0.3
    yield Outcome("exponent recovered, A = 3, alpha 0.3, n = 500", _share(printed(grows, 500)), 85 - slack, 100)
    yield Outcome("exponent recovered, n = 100 (mostly not: right)", _share(printed(grows, 100)), 20, 60)


def guards(rng: np.random.Generator, repeats: int) -> Iterator[Outcome]:
    """A redraw is no correction, an optimizer that does nothing is not adopted, and bands do not fake a gain."""
    corrects, adopted = [], []
    differences: dict[str, list[float]] = {"hard": [], "easy": []}
    same_draw: list[float] = []
    for _ in range(repeats):
        found = arms(rng, {("alpha", "none", k): 0.6 for k in (1, 2, 3)}, 200, 3, {})
        first, last, again = (arm.scores for arm in found.values())
        redraw = correction(first, last, (first, again), found["alpha", "none", 1].groups)
        corrects.append(labels([redraw]) == ["corrects"])
        one_run = [Arm("alpha", o, arm.items, arm.groups, arm.scores[:, :1])
                   for o, arm in zip(("none", "gepa"), found.values(), strict=False)]  # fmt: skip
        adopted.append(adoption_p(*one_run, {}) <= 0.05)
        by_band = bands(first, last - first)
        for name, values in differences.items():
            values.append(by_band[name])
        same_draw.append(float((last - first)[first == 0].mean()))
    yield at_most("redraw called a correction", corrects, 0.05)
    yield at_most("null optimizer adopted", adopted, 0.05)
    slack = 0.5 if repeats >= 1000 else 1.5
    for name, values in differences.items():
        yield Outcome(f"bands of other runs, {name}: bias in points", 100 * float(np.nanmean(values)), -slack, slack)
    yield Outcome("bands of the same draw fake a gain on hard items (points)", 100 * float(np.mean(same_draw)), 5, 100)


PROCEDURES: tuple[Callable[[np.random.Generator, int], Iterator[Outcome]], ...] = (
    wilson, newcombe, mcnemar, contrasts, scores, hypotheses, shapes, sizes, exponents, guards,
)  # fmt: skip

_CONTRASTS = {
    "pair": {("alpha", "gepa", 1): -1.0, ("alpha", "mipro", 1): 1.0},
    "q5 - q1": {(b, o, k): w / 6 for b in BENCHMARKS for o in ("gepa", "mipro") for k, w in ((5, 1.0), (1, -1.0))},
    "interaction": {
        (b, o, k): w * v / 3
        for b in BENCHMARKS
        for o, v in (("gepa", 1.0), ("mipro", -1.0))
        for k, w in ((5, 1.0), (1, -1.0))
    },
    "one benchmark": {("gamma", "gepa", 5): 1.0, ("gamma", "gepa", 1): -1.0},
}


def _holds(found: dict, parts: dict, between: dict) -> bool:
    one = contrast([(w, found[key]) for key, w in parts.items()], between)
    return one.low <= sum(w * _means()[key] for key, w in parts.items()) <= one.high


def _means() -> dict[tuple[str, str, int], float]:
    levels = {"alpha": 0.7, "beta": 0.75, "gamma": 0.6}
    gain = {1: 0.0, 3: 0.03, 5: 0.04}
    return {
        (b, o, k): level + gain[k] + (0.02 if o == "gepa" else 0.0)
        for b, level in levels.items()
        for o in ("gepa", "mipro")
        for k in (1, 3, 5)
    }


def _sds(gepa: float, mipro: float) -> dict[str, float]:
    return {"gepa": gepa / 100, "mipro": mipro / 100}


def _pair(rng: np.random.Generator, means: tuple[float, float], n: int) -> list[np.ndarray]:
    found = arms(rng, {("alpha", "none", i): q for i, q in enumerate(means)}, n, 1, {})
    return [arm.scores[:, 0] for arm in found.values()]


def _share(hits: list[bool]) -> float:
    return 100 * float(np.mean(hits))
