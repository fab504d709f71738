"""RQ1 to RQ4 of plan.txt: does correcting itself help larger models more, on which tasks, and when does it pay?

Units are models. gain is the last turn minus the first, mean over items and runs; every function takes the frame
that `turns.gains_of` makes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats as distributions

from scaling.analysis.fits import Line, power_law, regression, too_few_sizes, zero_set
from scaling.analysis.stats import SIGNIFICANCE, holm
from scaling.analysis.test_rows import TestRow
from scaling.analysis.text import interval_text, percent, plural
from scaling.analysis.verdicts import CANNOT_TELL, CONTRADICTED, POWER, SUPPORTED, smallest_effect
from scaling.intervals import LEVEL
from scaling.planning.questions import QUESTIONS

SIZE_FAMILY, LEVEL_MODELS = "RQ1, RQ3", "models"
SMALLEST_SLOPE = 0.01  # of gain a tenfold of size
FEWEST_MODELS = 4
ALL_ORDERS = math.factorial(8)  # up to eight models all orders are tried, above that as many at random
SPEARMAN = "Spearman with "  # a property
FIRST_TURN = "first turn in the other half of the runs"
# Property -> columns of (gain, property) that are ranked against each other; the mean of their correlations counts.
PROPERTIES = {
    "size": [("gain", "published_size")],
    "price": [("gain", "price")],
    "context_length": [("gain", "context_length")],
    FIRST_TURN: [("gain_even", "first_odd"), ("gain_odd", "first_even")],
}


def test_research(gains: pd.DataFrame, value: float | None) -> list[TestRow]:
    """Rows of summary_tests.csv for RQ1 to RQ4 and the exponent; RQ1 and RQ3 are one Holm family.

    None without self-correction.
    """
    if gains.empty:
        return []
    (rq1, p_slope), rq3 = _rq1(gains), _rq3(gains)
    p_rq1, p_rq3 = holm([row.p if row.p is not None else 1.0 for row in (rq1, rq3)])
    excluded, _ = holm([p_slope, 1.0])  # RQ3 has no "contradicted"
    if rq1.p is not None:
        line = rq1.effect or 0.0
        supported = p_rq1 < SIGNIFICANCE and line > 0
        contradicted = excluded < SIGNIFICANCE / 2 or (p_rq1 < SIGNIFICANCE and line < 0)
        word = SUPPORTED if supported else CONTRADICTED if contradicted else CANNOT_TELL
        rq1 = replace(rq1, p_holm=p_rq1, verdict=word)
    if rq3.p is not None:
        rq3 = replace(rq3, p_holm=p_rq3, verdict=SUPPORTED if p_rq3 < SIGNIFICANCE else CANNOT_TELL)
    return [rq1, *_rq2(gains), rq3, _exponent(gains), _rq4(gains, value)]


def size_line_of(gains: pd.DataFrame, statuses: tuple[str, ...] = ("published",)) -> tuple[pd.DataFrame, Line | None]:
    """Mean gain over tasks by model against log10 size, models of these statuses; the line from three models on.

    `low` and `high` are the 95 % interval of a model's mean gain: t with Satterthwaite's degrees of freedom.
    """
    sized = gains[gains["status"].isin(statuses) & gains["size"].notna()]
    by_model = gains_by_model(sized)
    if len(by_model) < 3 or by_model["size"].nunique() < 3:
        return by_model, None
    gain, variance = by_model["gain"].tolist(), by_model["variance"].tolist()
    return by_model, regression(np.log10(by_model["size"]).tolist(), gain, variance)


def gains_by_model(gains: pd.DataFrame) -> pd.DataFrame:
    """Means over tasks with the 95 % interval of the gain, a row per model.

    A model that lacks a task has another mean and is left out.
    """
    tasks = gains["benchmark"].nunique()
    parts = gains.assign(published_size=gains["size"].where(gains["status"] == "published"),
                         of_df=gains["variance"] ** 2 / gains["df"])  # fmt: skip
    halves = {name: (name, _mean_of_all) for name in ("gain_even", "gain_odd", "first_even", "first_odd")}
    by_model = parts.groupby("model").agg(
        size=("size", "first"), published_size=("published_size", "first"), price=("price", "first"),
        context_length=("context_length", "first"), gain=("gain", "mean"), variance=("variance", "sum"),
        of_df=("of_df", "sum"), tasks=("benchmark", "nunique"), extra_usd=("extra_usd", "mean"),
        beyond_vote=("beyond_vote", _mean_of_all), **halves,
    )  # fmt: skip
    by_model = by_model[by_model["tasks"] == tasks]
    df = (by_model["variance"] ** 2 / by_model["of_df"]).fillna(1.0)
    by_model["variance"] /= max(tasks, 1) ** 2
    half = distributions.t.ppf(0.5 + LEVEL / 2, df) * np.sqrt(by_model["variance"])
    return by_model.assign(low=by_model["gain"] - half, high=by_model["gain"] + half)


def _mean_of_all(values: pd.Series) -> float:
    """The mean; NaN where one of the values is not known."""
    return float(values.mean(skipna=False))


def threshold(gains: pd.DataFrame, value: float) -> tuple[str, str]:
    """(verdict, sentence) on the sizes from which correcting pays at `value` dollars a right answer (plan.txt, RQ4).

    For three models of different published sizes and known prices, or more.
    """
    by_model = _priced(gains)
    x = np.log10(by_model["size"].to_numpy(float))
    net = value * by_model["gain"].to_numpy() - by_model["extra_usd"].to_numpy(float)
    line = regression(x.tolist(), net.tolist(), (value**2 * by_model["variance"]).tolist())
    parts = zero_set(line, float(x.min()), float(x.max()))
    sizes = " or ".join(f"{10**low:.3g} to {10**high:.3g} billion" for low, high in parts)
    bounded = len(parts) == 1 and parts[0][0] > x.min() and parts[0][1] < x.max()
    if bounded and line.slope > 0:
        return SUPPORTED, f"it pays from a size on that lies in {sizes} (95 %), at ${value:g} a right answer"
    if not parts:
        pays = "pays" if line.intercept + line.slope * x[0] > 0 else "does not pay"
        return CONTRADICTED, f"it {pays} at any measured size"
    return CANNOT_TELL, f"no bounded threshold (not rejected: {sizes})"


def _priced(gains: pd.DataFrame) -> pd.DataFrame:
    return size_line_of(gains)[0].dropna(subset=["extra_usd"])


def _too_few_priced(gains: pd.DataFrame) -> str:
    by_model = _priced(gains)
    if len(by_model) >= 3 and by_model["size"].nunique() >= 3:
        return ""
    return f"not run: {plural(len(by_model), 'model')} of published size and known price, 3 are needed"


def _asking(name: str, family: str, comparison: str) -> TestRow:
    """An empty row of this question."""
    return TestRow(family, QUESTIONS[name].sentence, comparison, level=LEVEL_MODELS, asks=name)


def _rq1(gains: pd.DataFrame) -> tuple[TestRow, float]:
    """The row, and the one-sided p of a slope of `SMALLEST_SLOPE` or more (1 where it is not run)."""
    row = _asking("RQ1", SIZE_FAMILY, "slope of mean gain a tenfold of size")
    by_model, line = size_line_of(gains)
    if len(by_model) < FEWEST_MODELS or line is None:
        few = f"not run: {plural(len(by_model), 'model')} of published size, {FEWEST_MODELS} are needed"
        return row.refused(few), 1.0
    lacking = sorted(set(_published(gains)["model"]) - set(by_model.index))
    note = f"left out, as they lack a task: {', '.join(lacking)}" if lacking else ""
    return replace(_with_line(row, line, len(by_model), 2), note=note), line.p_at_least(SMALLEST_SLOPE)


def _published(gains: pd.DataFrame) -> pd.DataFrame:
    return gains[(gains["status"] == "published") & gains["size"].notna()]


def _rq2(gains: pd.DataFrame) -> list[TestRow]:
    """Spearman's rank correlations of gain with properties of the models, Holm over properties."""
    by_model = gains_by_model(gains)
    rows = [_property_row(by_model, name) for name in PROPERTIES]
    tested = [row for row in rows if row.p is not None]
    adjusted = iter(holm([row.p for row in tested if row.p is not None]))
    at_best = iter(holm([_smallest_p(by_model, row.comparison) for row in tested]))
    return [row if row.p is None else _with_direction(row, next(adjusted), next(at_best), len(tested)) for row in rows]


def _with_direction(row: TestRow, p_holm: float, at_best: float, properties: int) -> TestRow:
    """The row with Holm's p; at_best: the one that the clearest order of these models would have."""
    rises = "rises" if (row.effect or 0.0) > 0 else "falls"
    row = replace(row, p_holm=p_holm, verdict=rises if p_holm < SIGNIFICANCE else CANNOT_TELL)
    if at_best >= SIGNIFICANCE:
        few = f"{plural(row.n or 0, 'model')} can give no smaller p than {at_best:.2f} after Holm over properties"
        return row.refused(f"too few models: {few}")
    return replace(row, detectable=smallest_correlation(row.n or 0, properties))


def smallest_correlation(models: int, properties: int) -> float:
    """The rank correlation that is found with 80 % power, about, after Holm; for four models or more.

    By Fisher's z with variance 1.06 / (m - 3) (Fieller, Hartley & Pearson 1957, Biometrika 44:470).
    """
    limit = distributions.norm.ppf(1 - SIGNIFICANCE / properties / 2) + distributions.norm.ppf(POWER)
    return float(np.tanh(limit * math.sqrt(1.06 / (models - 3))))


def _smallest_p(by_model: pd.DataFrame, comparison: str) -> float:
    """The p of the clearest order of the models, two-sided, over the halves in which the property is compared."""
    columns = PROPERTIES[comparison.removeprefix(SPEARMAN)]
    return min(1.0, len(columns) * max(2 / _orders(by_model[prop].dropna()) for _, prop in columns))


def _orders(values: pd.Series) -> float:
    """Orders of the values that differ; at most as many as are tried."""
    alike = math.prod(math.factorial(int(count)) for count in values.value_counts())
    return min(math.factorial(len(values)) / alike, ALL_ORDERS)


def _property_row(by_model: pd.DataFrame, name: str) -> TestRow:
    row = _asking("RQ2", "RQ2 (exploratory)", f"{SPEARMAN}{name}")
    columns = PROPERTIES[name]
    having = by_model[list({column for pair in columns for column in pair})].astype(float).dropna()
    if name == FIRST_TURN and having.empty:
        return row.refused("not run: one run, and its first turn shares its noise with its gain")
    if len(having) < FEWEST_MODELS:
        return row.refused(f"not run: {plural(len(having), 'model')} with it, {FEWEST_MODELS} are needed")
    if min(having[prop].nunique() for _, prop in columns) < 2:
        return row.refused("not run: it is the same for all models")
    rho, p = correlation([(having[gain].to_numpy(), having[prop].to_numpy()) for gain, prop in columns])
    return replace(row, effect=rho, p=p, n=len(having), note="models of one family are not independent")


def correlation(halves: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """(mean rank correlation of the halves, its two-sided p). Each half is (x, y), shape (m,) each, of the same models.

    The p is Bonferroni's over the halves. Permuting the models in both at once would reject too often: the gain of a
    half shares its noise with the property in the other one, and so do their correlations (7 % at 5 %, simulated).
    """
    tested = [spearman(x, y, np.random.default_rng(half)) for half, (x, y) in enumerate(halves)]
    return float(np.mean([rho for rho, _ in tested])), min(1.0, len(tested) * min(p for _, p in tested))


def spearman(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """(rank correlation, its two-sided p): all orders of up to eight models, else as many drawn by rng."""
    ranks, others = _unit_ranks(x), _unit_ranks(y)

    def statistic(order: np.ndarray, axis: int = -1) -> np.ndarray:
        product: np.ndarray = ranks[order.astype(int)] * others
        return np.asarray(product.sum(axis=axis))

    tested = distributions.permutation_test(
        (np.arange(len(ranks)),), statistic, permutation_type="pairings", n_resamples=ALL_ORDERS, vectorized=True,
        rng=rng,
    )  # fmt: skip
    return float(tested.statistic), float(tested.pvalue)


def _unit_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks with mean 0 and length 1; the product of two of them is Spearman's correlation."""
    ranks = distributions.rankdata(values)
    centred = ranks - ranks.mean()
    length = np.linalg.norm(centred)
    return np.asarray(centred / length if length else centred)


def _rq3(gains: pd.DataFrame) -> TestRow:
    """The pair of tasks whose slopes over size differ most; Holm over all pairs."""
    row = _asking("RQ3", SIZE_FAMILY, "slopes of gain differences, by pairs")
    slopes = _task_slopes(gains)
    if not slopes:
        return row.refused(f"not run: no pair of tasks has {FEWEST_MODELS} models of published size")
    adjusted = holm([slope.line.p for slope in slopes])
    shown = [slope.sentence for slope, p in zip(slopes, adjusted, strict=True) if p < SIGNIFICANCE]
    best = slopes[int(np.argmin(adjusted))]
    note = "; ".join(shown) or "no pair of tasks is shown to differ"
    row = replace(_with_line(row, best.line, best.models, 2 * len(slopes)), p=min(adjusted), note=note)
    return replace(row, comparison=f"{best.first} - {best.second}")


@dataclass(frozen=True)
class TaskSlope:
    """The slope over size of the gain on one task minus the gain on another, over the models that did both."""

    first: str
    second: str
    line: Line
    models: int

    @property
    def sentence(self) -> str:
        more, less = (self.first, self.second) if self.line.slope > 0 else (self.second, self.first)
        return f"gain grows more with size on {more} than on {less}"


def _task_slopes(gains: pd.DataFrame) -> list[TaskSlope]:
    published = _published(gains).set_index("model")
    by_task = {str(task): part for task, part in published.groupby("benchmark")}
    slopes = []
    for first, second in itertools.combinations(sorted(by_task), 2):
        both = by_task[first].merge(by_task[second], left_index=True, right_index=True, suffixes=("", "_b"))
        if len(both) >= FEWEST_MODELS and both["size"].nunique() >= 3:
            variance = (both["variance"] + both["variance_b"]).tolist()
            line = regression(np.log10(both["size"]).tolist(), (both["gain"] - both["gain_b"]).tolist(), variance)
            slopes.append(TaskSlope(first, second, line, len(both)))
    return slopes


def _exponent(gains: pd.DataFrame) -> TestRow:
    """alpha in gain = A size^alpha over all tasks; named only where its set is bounded and holds no 0 (plan.txt, 9)."""
    row = _asking("exponent", "exponent", "alpha in gain = A size^alpha")
    by_model, _ = size_line_of(gains)
    if by_model.empty:
        return row.refused("not run: no model of published size")
    sizes = by_model["size"].tolist()
    if few := too_few_sizes(sizes):
        return row.refused(f"not run: {few}")
    law = power_law(sizes, by_model["gain"].tolist())
    verdict = CANNOT_TELL if law.refused else f"alpha {law.alpha:.2f}"
    return replace(row, effect=law.alpha, ci_low=law.low, ci_high=law.high, verdict=verdict, reason=law.refused,
                   n=len(sizes))  # fmt: skip


def _rq4(gains: pd.DataFrame, value: float | None) -> TestRow:
    row = _asking("RQ4", "RQ4", "sizes where value x gain = extra dollars")
    if few := _too_few_priced(gains):
        return row.refused(few)
    if value is None:
        return row.refused("give --value-per-correct USD")
    verdict, sentence = threshold(gains, value)
    return replace(row, verdict=verdict, reason=sentence, note=_beyond_vote(gains))


def _beyond_vote(gains: pd.DataFrame) -> str:
    """What correcting gives beyond a vote of as many calls: mean over models, with its t interval over them."""
    beyond = gains_by_model(gains)["beyond_vote"].dropna().to_numpy(float)
    if len(beyond) < 2:
        return ""
    mean = float(beyond.mean())
    half = float(distributions.t.ppf(0.5 + LEVEL / 2, len(beyond) - 1) * beyond.std(ddof=1)) / math.sqrt(len(beyond))
    return (
        f"beyond the vote at equal calls: {percent(mean, sign=True)} "
        f"{interval_text(mean - half, mean + half, sign=True)} points, mean of {len(beyond)} models"
    )


def _with_line(row: TestRow, line: Line, models: int, comparisons: int) -> TestRow:
    """The row with its slope; `comparisons` are those that Holm's correction is over."""
    low, high = line.slope_interval
    able = smallest_effect(math.sqrt(line.cov[1, 1]), line.df, comparisons)
    return replace(row, effect=line.slope, ci_low=low, ci_high=high, p=line.p, n=models, detectable=able)
