"""From estimates to words: corrections for many tests, verdicts, the power of the rule that decides (plan.txt, 8)."""

from __future__ import annotations

import math

from scipy import special

from scaling.analysis.stats import SIGNIFICANCE, THIS_PROGRAM, Estimate

POWER = 0.80
MOST_RUNS = 100  # above it nobody would settle it, and few measured runs do not tell how many
PLANNED_RUNS = 3  # of the default study: what one run is told to make first
SUPPORTED, CONTRADICTED, CANNOT_TELL, MIXED = "supported", "contradicted", "cannot tell", "mixed"
BETTER, WORSE, NOT_COMPARED = "better", "worse", "not compared"
# One run speaks of its program and its rows: words that nobody takes for a statement about the optimizer.
HIGHER_HERE, LOWER_HERE, NO_DIFFERENCE_HERE = (
    "on these rows: higher", "on these rows: lower", "on these rows: no difference shown",
)  # fmt: skip


def verdict(effect: float, is_shown: bool, is_excluded: bool) -> str:
    """supported, contradicted or cannot tell, for a hypothesis whose effect should be positive (plan.txt).

    is_shown: whether "no effect" is rejected; is_excluded: whether an effect of interest is.
    """
    if is_shown and effect > 0:
        return SUPPORTED
    return CONTRADICTED if is_excluded or (is_shown and effect < 0) else CANNOT_TELL


def direction(estimate: Estimate, p_holm: float) -> str:
    """What a table of comparisons says of one (Holm's p within the table).

    Several runs: better, worse or cannot tell. One run: higher, lower or no difference shown, on these rows.
    """
    if math.isnan(estimate.effect):
        return NOT_COMPARED
    one_run = estimate.level == THIS_PROGRAM
    if p_holm >= SIGNIFICANCE:
        return NO_DIFFERENCE_HERE if one_run and not estimate.untestable else CANNOT_TELL
    if estimate.effect > 0:
        return HIGHER_HERE if one_run else BETTER
    return LOWER_HERE if one_run else WORSE


def detectable(estimate: Estimate, comparisons: int) -> float:
    """The effect that the rule which decides finds with 80 % power, a fraction; NaN where there is no test."""
    return math.nan if estimate.untestable else smallest_effect(estimate.se, estimate.df, comparisons)


def smallest_effect(se: float, df: float, comparisons: int) -> float:
    """The effect with this standard error that is found with 80 % power, in the unit of `se`.

    The rule is a two-sided t test at 5 % after Holm over so many `comparisons`; the smallest p must be below
    5 % / comparisons, so this is the power where the others show nothing, and more where they do. The
    noncentrality at which a noncentral t passes that limit is scipy's nctdtrinc.
    """
    limit = special.stdtrit(df, 1 - SIGNIFICANCE / comparisons / 2)
    return float(special.nctdtrinc(df, 1 - POWER, limit)) * se


def settling_size(estimate: Estimate, smallest: float, comparisons: int) -> str:
    """The rows and runs at which the rule finds an effect of `smallest` with 80 % power; "" where nothing is known.

    Rows shrink the part of the variance that is over items, runs the part that is between runs; degrees of freedom
    are kept as they are. Runs stand first where no number of rows can settle it: when the runs' part alone is too
    large, and when there is one run only. A guide, not a promise.
    """
    if estimate.untestable:
        return ""
    wanted = (smallest / (detectable(estimate, comparisons) / estimate.se)) ** 2
    from_items = estimate.se**2 - estimate.from_runs
    if estimate.level == THIS_PROGRAM:
        rows = max(estimate.n, estimate.n * from_items / wanted)
        return f"{PLANNED_RUNS} runs first, then {_nicely(rows)} rows"
    if estimate.se**2 <= wanted:
        return "these rows and runs"
    if estimate.from_runs < 0.9 * wanted:
        return f"{_nicely(estimate.n * from_items / (wanted - estimate.from_runs))} rows x {estimate.runs} runs"
    runs = math.ceil(estimate.runs * estimate.from_runs / (0.5 * wanted))
    if runs > MOST_RUNS:
        return f"more than {MOST_RUNS} runs"
    return f"{runs} runs first, then {_nicely(max(estimate.n, estimate.n * from_items / (0.5 * wanted)))} rows"


def _nicely(number: float) -> str:
    """A number of rows, rounded up to two digits."""
    size = 10 ** max(0, math.floor(math.log10(max(number, 1))) - 1)
    return f"{math.ceil(number / size) * size:,.0f}"
