"""The hypotheses of plan.txt as contrasts over the records: H1 to H4, each with one of three verdicts.

Every contrast that cannot be formed (missing cells, one run, unequal terms) says why and stays
"cannot tell". Effects are fractions; smallest effects of interest are the plan's.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from scaling.stats import FEWEST_RUN_DF, Arm, Estimate, RunVariance, contrast, holm, run_variances, verdict
from scaling.tables import SHARED, Results, matrix, name_of, series_cells

QUESTIONS = {
    "H1": ("scaling", "Is the score at 5 steps higher than at 1 step?", 0.02),
    "H2": ("diminishing returns", "Is the rise from 1 to 3 steps, a call, larger than from 3 to 5?", 0.01),
    "H3": ("optimizer preference", "Does GEPA minus MIPROv2 change from 1 to 5 steps?", 0.03),
    "H4": ("task dependency", "Is 5 minus 1 steps larger on reasoning than on classification?", 0.03),
}
# Terms that may differ between benchmarks, not inside one.
WITHIN_BENCHMARK = ("test_sha256", "select_size")
TEST_COLUMNS = ["family", "question", "comparison", "effect", "ci_low", "ci_high", "p", "p_holm", "verdict",
                "level", "n", "runs", "reason"]  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """Chain cells that share all terms: (benchmark, optimizer, steps) -> arm; and what had to be left out."""

    arms: dict[tuple[str, str, int], Arm]
    task_class: dict[str, str]
    between_runs: dict[str, RunVariance]
    notes: list[str]

    @property
    def benchmarks(self) -> list[str]:
        return sorted({b for b, _, _ in self.arms})

    @property
    def optimizers(self) -> list[str]:
        return sorted({o for _, o, _ in self.arms if o != "none"})

    def has(self, benchmark: str, optimizer: str, steps: tuple[int, ...]) -> bool:
        return all((benchmark, optimizer, k) in self.arms for k in steps)


def arms_of(results: Results, pipeline: str = "chain") -> tuple[dict[tuple, Arm], dict[str, str]]:
    """(series fields + steps) -> arm, for one pipeline; and each benchmark's declared task class."""
    arms, classes = {}, {}
    for series, by_steps in series_cells(results).items():
        fields = name_of(series)
        if fields["pipeline"] != pipeline:
            continue
        for steps, keys in by_steps.items():
            classes[fields["benchmark"]] = results.cells.loc[keys[0], "task_class"]
            arm = Arm(fields["benchmark"], fields["optimizer"], matrix(results, keys), results.groups(keys[0]))
            if not arm.scores.empty:
                arms[(series, steps)] = arm
    return arms, classes


def grid(results: Results) -> Grid:
    """The largest set of chain cells on equal terms; what is left out is named in `notes` with the field that differs.

    All benchmarks must share model, proposer, budget and temperature; the cells of one benchmark its selection
    rows and test rows too.
    """
    arms, classes = arms_of(results)
    if not arms:
        return Grid({}, {}, {}, ["no cell of the pipeline chain is ok"])
    arms, notes = _largest(arms, [f for f in SHARED if f not in WITHIN_BENCHMARK], "")
    kept = {}
    for benchmark in sorted({arm.benchmark for arm in arms.values()}):
        mine = {key: arm for key, arm in arms.items() if arm.benchmark == benchmark}
        mine, refused = _largest(mine, list(WITHIN_BENCHMARK), f" of {benchmark}")
        notes += refused
        kept |= {(benchmark, arm.optimizer, steps): arm for (_, steps), arm in mine.items()}
    notes += _flagged(results)
    return Grid(kept, classes, run_variances(list(kept.values())), notes)


def _largest(arms: dict[tuple, Arm], terms: list[str], where: str) -> tuple[dict[tuple, Arm], list[str]]:
    """The arms that share the commonest values of `terms`, and a sentence for each other set."""
    by_terms: dict[tuple, dict[tuple, Arm]] = {}
    for (series, steps), arm in arms.items():
        values = tuple(name_of(series)[f] for f in terms)
        by_terms.setdefault(values, {})[(series, steps)] = arm
    chosen = max(by_terms, key=lambda values: len(by_terms[values]))
    refused = []
    for values, others in by_terms.items():
        if values != chosen:
            pairs = zip(terms, values, chosen, strict=True)
            differing = [
                f"{f} {str(mine)[:40]} against {str(theirs)[:40]}" for f, mine, theirs in pairs if mine != theirs
            ]
            refused.append(f"{len(others)} cells{where} with the others: {', '.join(differing)}")
    return by_terms[chosen], refused


def _flagged(results: Results) -> list[str]:
    """Cells whose rollouts are too far from their budget for the comparison of optimizers."""
    cells = results.cells
    return [
        f"{row['benchmark']} {row['steps']} steps {row['optimizer']} run {row['run']} in H3: it used "
        f"{100 * row['used_share']:.0f} % of its rollouts"
        for _, row in cells[cells["flagged"].astype(bool) & (cells["status"] == "ok")].iterrows()
    ]


def test_hypotheses(results: Results) -> tuple[pd.DataFrame, list[str]]:
    """summary_tests.csv's frame for H1 to H4, and notes on what was left out or refused."""
    cells = grid(results)
    builders = {"H1": _h1, "H2": _h2, "H3": _h3, "H4": _h4}
    built = {name: build(cells, results) for name, build in builders.items()}
    p_sup = [_p_sup(name, one) for name, one in built.items()]
    p_con = [_p_con(name, one) for name, one in built.items()]
    rows = []
    for (name, one), p, adjusted, con in zip(built.items(), p_sup, holm(p_sup), holm(p_con), strict=True):
        rows.append(_row(name, one, p, adjusted, con, cells))
    return pd.DataFrame(rows, columns=TEST_COLUMNS), cells.notes


@dataclass(frozen=True)
class Built:
    """A hypothesis' contrast, or why there is none; `blocked` forbids a verdict although there is one."""

    comparison: str
    estimate: Estimate | None = None
    reason: str = ""
    early: Estimate | None = None


def _mean_at(cells: Grid, steps: int, weight: float, benchmarks: list[str], optimizers: list[str]) -> list:
    share = weight / (len(benchmarks) * len(optimizers))
    return [(share, cells.arms[(b, o, steps)]) for b in benchmarks for o in optimizers]


def _complete(cells: Grid, steps: tuple[int, ...]) -> list[str]:
    """Benchmarks that have every cell of a contrast; those with one run drop out where two or more have several."""
    having = [b for b in cells.benchmarks if cells.optimizers and all(cells.has(b, o, steps) for o in cells.optimizers)]
    several = [b for b in having if all(cells.arms[(b, o, k)].runs >= 2 for o in cells.optimizers for k in steps)]
    return several if len(several) >= 2 else having


def _contrast(cells: Grid, parts: list[tuple[int, float]]) -> tuple[str, Estimate | None]:
    """The contrast sum(weight x q_steps) over the benchmarks that have all its cells."""
    benchmarks = _complete(cells, tuple(k for k, _ in parts))
    if len(benchmarks) < 2:
        return "", None
    weighted = [item for k, w in parts for item in _mean_at(cells, k, w, benchmarks, cells.optimizers)]
    return f"on {', '.join(benchmarks)}; {', '.join(cells.optimizers)}", contrast(weighted, cells.between_runs)


def _not_run(steps: str) -> str:
    return f"not run: fewer than two benchmarks have all cells at {steps} steps"


def _h1(cells: Grid, results: Results) -> Built:
    where, estimate = _contrast(cells, [(5, 1.0), (1, -1.0)])
    return Built(f"q5 - q1 {where}", estimate, "" if estimate else _not_run("1 and 5"))


def _h2(cells: Grid, results: Results) -> Built:
    where, bend = _contrast(cells, [(3, 1.0), (1, -0.5), (5, -0.5)])
    _, early = _contrast(cells, [(3, 1.0), (1, -1.0)])
    if bend is None:
        return Built("(q3 - q1)/2 - (q5 - q3)/2", None, _not_run("1, 3 and 5"))
    return Built(f"(q3 - q1)/2 - (q5 - q3)/2 {where}", bend, "", early)


def _h3(cells: Grid, results: Results) -> Built:
    pair = ("gepa", "mipro")
    name = "(GEPA - MIPROv2 at 5) - (GEPA - MIPROv2 at 1)"
    benchmarks = [b for b in cells.benchmarks if all(cells.has(b, o, (1, 5)) for o in pair)]
    if len(benchmarks) < 2:
        return Built(name, None, _not_run("1 and 5, with both optimizers,"))
    ok = results.cells[(results.cells["status"] == "ok") & (results.cells["pipeline"] == "chain")]
    if ok[ok["optimizer"].isin(pair) & ok["steps"].isin((1, 5))]["flagged"].any():
        return Built(name, None, "not compared: a cell's rollouts are outside 80 to 100 % of its budget")
    signs = ((5, "gepa", 1.0), (5, "mipro", -1.0), (1, "gepa", -1.0), (1, "mipro", 1.0))
    weighted = [(w / len(benchmarks), cells.arms[(b, o, k)]) for b in benchmarks for k, o, w in signs]
    return Built(f"{name} on {', '.join(benchmarks)}", contrast(weighted, cells.between_runs))


def _h4(cells: Grid, results: Results) -> Built:
    complete = _complete(cells, (1, 5))
    by_class = {c: [b for b in complete if cells.task_class.get(b) == c] for c in ("reasoning", "classification")}
    name = "(q5 - q1 on reasoning) - (q5 - q1 on classification)"
    if not all(by_class.values()):
        return Built(name, None, "not run: needs a reasoning and a classification benchmark at 1 and 5 steps")
    weighted = []
    for task_class, sign in (("reasoning", 1.0), ("classification", -1.0)):
        for steps, w in ((5, sign), (1, -sign)):
            weighted += _mean_at(cells, steps, w, by_class[task_class], cells.optimizers)
    return Built(f"{name}: {by_class}", contrast(weighted, cells.between_runs))


def _p_sup(name: str, one: Built) -> float:
    if one.estimate is None:
        return 1.0
    return max(one.estimate.p, one.early.p) if one.early else one.estimate.p


def _p_con(name: str, one: Built) -> float:
    if one.estimate is None:
        return 1.0
    smallest = QUESTIONS[name][2]
    if name != "H3":
        return one.estimate.p_at_least(smallest)
    return max(one.estimate.p_at_least(smallest), 1.0 - one.estimate.p_at_least(-smallest))


def _row(name: str, one: Built, p: float, p_holm: float, p_con: float, cells: Grid) -> dict:
    title, question, smallest = QUESTIONS[name]
    row = dict.fromkeys(TEST_COLUMNS) | {
        "family": "H1-H4", "question": f"{name} {title}: {question}", "comparison": one.comparison.strip(),
        "verdict": "cannot tell", "reason": one.reason,
    }  # fmt: skip
    e = one.estimate
    if e is None:
        return row
    row |= {"effect": e.effect, "ci_low": e.low, "ci_high": e.high, "p": p, "p_holm": p_holm}
    row |= {"level": e.level, "n": e.n, "runs": e.runs}
    run_df = min((cells.between_runs[o].df for o in cells.optimizers if o in cells.between_runs), default=0)
    if e.runs < 2 or run_df < FEWEST_RUN_DF:
        return row | {"reason": "too few runs: one run says nothing about the next one"}
    if name == "H2" and not (one.early.p < 0.05 and one.early.effect > 0):
        return row | {"reason": "no rise from 1 to 3 steps is shown that could diminish"}
    if name == "H3":
        row["verdict"] = "supported" if p_holm < 0.05 else "contradicted" if p_con < 0.025 else "cannot tell"
        more = "GEPA" if e.effect > 0 else "MIPROv2"
        return row | {"reason": f"{more} prefers more steps" if p_holm < 0.05 else ""}
    return row | {"verdict": verdict(e, smallest, p_holm, p_con)}
