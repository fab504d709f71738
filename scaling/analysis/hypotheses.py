"""The hypotheses of plan.txt as contrasts over the records: H1 to H4, each with one of three verdicts.

Every contrast that cannot be formed (missing cells, one run, unequal terms) says why and stays
"cannot tell". Effects are fractions; smallest effects of interest are the plan's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from scaling.analysis.stats import (
    FEWEST_RUN_DF,
    SIGNIFICANCE,
    Arm,
    Estimate,
    RunVariance,
    contrast,
    direction,
    holm,
    run_variances,
    settling_size,
    verdict,
)

QUESTIONS = {
    "H1": ("scaling", "Is the score at 5 steps higher than at 1 step?", 0.02),
    "H2": ("diminishing returns", "Is the rise from 1 to 3 steps, a call, larger than from 3 to 5?", 0.01),
    "H3": ("optimizer preference", "Does GEPA minus MIPROv2 change from 1 to 5 steps?", 0.03),
    "H4": ("task dependency", "Is 5 minus 1 steps larger on reasoning than on classification?", 0.03),
}
TEST_COLUMNS = ["family", "question", "comparison", "effect", "ci_low", "ci_high", "p", "p_holm", "verdict",
                "level", "n", "runs", "reason", "note", "detectable", "to_settle"]  # fmt: skip
Key = tuple[str, str, int]  # benchmark, optimizer, steps


@dataclass(frozen=True)
class Grid:
    """Cells that share all terms, by (benchmark, optimizer, steps).

    arms: the chain; vote: the same calls without the chain; early: the incumbent at budget / steps; exact: the
    same answers under exact match where a benchmark scores F1. flagged: keys whose rollouts were off budget.
    """

    arms: dict[Key, Arm]
    task_class: dict[str, str]
    vote: dict[Key, Arm] = field(default_factory=dict)
    early: dict[Key, Arm] = field(default_factory=dict)
    exact: dict[Key, Arm] = field(default_factory=dict)
    flagged: frozenset[Key] = frozenset()

    @property
    def between_runs(self) -> dict[str, RunVariance]:
        return run_variances(list(self.arms.values()))

    @property
    def benchmarks(self) -> list[str]:
        return sorted({b for b, _, _ in self.arms})

    @property
    def optimizers(self) -> list[str]:
        """The optimizers that q_k averages over: GEPA and MIPROv2 where they were run, else all there are."""
        found = sorted({o for _, o, _ in self.arms if o != "none"})
        return [o for o in found if o in ("gepa", "mipro")] or found

    def has(self, benchmark: str, optimizer: str, steps: tuple[int, ...]) -> bool:
        return all((benchmark, optimizer, k) in self.arms for k in steps)


@dataclass(frozen=True)
class Built:
    """A hypothesis' contrast, or why there is none.

    rise: the first rise that H2 needs; note: what the sentence always adds; veto: why there is no verdict although
    there is a contrast.
    """

    comparison: str
    estimate: Estimate | None = None
    reason: str = ""
    rise: Estimate | None = None
    note: str = ""
    veto: str = ""
    unpooled: Estimate | None = None


def judge(cells: Grid) -> list[dict]:
    """Rows of summary_tests.csv for H1 to H4, one Holm family of four also when one is not run."""
    builders: dict[str, Callable[[Grid], Built]] = {"H1": _h1, "H2": _h2, "H3": _h3, "H4": _h4}
    built = {name: build(cells) for name, build in builders.items()}
    p_sup = [_p_sup(one) for one in built.values()]
    p_con = [_p_con(name, one) for name, one in built.items()]
    rows = zip(built.items(), p_sup, holm(p_sup), holm(p_con), strict=True)
    return [_row(name, one, p, adjusted, con, cells) for (name, one), p, adjusted, con in rows]


def score_at(cells: Grid, steps: int, weight: float, benchmarks: list[str], arms: dict[Key, Arm] | None = None) -> list:
    """Weighted arms of weight x q_steps: the mean over benchmarks and optimizers."""
    share = weight / (len(benchmarks) * len(cells.optimizers))
    arms = cells.arms if arms is None else arms
    return [(share, arms[(b, o, steps)]) for b in benchmarks for o in cells.optimizers]


def _complete(cells: Grid, steps: tuple[int, ...]) -> list[str]:
    """Benchmarks that have every cell of a contrast; those with one run drop out where two or more have several."""
    having = [b for b in cells.benchmarks if cells.optimizers and all(cells.has(b, o, steps) for o in cells.optimizers)]
    several = [b for b in having if all(cells.arms[(b, o, k)].runs >= 2 for o in cells.optimizers for k in steps)]
    return several if len(several) >= 2 else having


def _contrast(cells: Grid, parts: list[tuple[int, float]]) -> tuple[str, Estimate | None, Estimate | None]:
    """The contrast sum(weight x q_steps) over the benchmarks that have all its cells; pooled and unpooled."""
    benchmarks = _complete(cells, tuple(k for k, _ in parts))
    if len(benchmarks) < 2:
        return "", None, None
    weighted = [item for k, w in parts for item in score_at(cells, k, w, benchmarks)]
    where = f"on {', '.join(benchmarks)}; {', '.join(cells.optimizers)}"
    return where, contrast(weighted, cells.between_runs), contrast(weighted, cells.between_runs, pooled=False)


def _not_run(steps: str) -> str:
    return f"not run: fewer than two benchmarks have all cells at {steps} steps"


def _h1(cells: Grid) -> Built:
    where, estimate, unpooled = _contrast(cells, [(5, 1.0), (1, -1.0)])
    if estimate is None:
        return Built("q5 - q1", None, _not_run("1 and 5"))
    benchmarks = _complete(cells, (1, 5))
    each = [contrast(_five_minus_one(cells, [b]), cells.between_runs) for b in benchmarks]
    told = [direction(one, p) for one, p in zip(each, holm([one.p for one in each]), strict=True)]
    mixed = {"better", "worse"} <= set(told)
    veto = "mixed: " + ", ".join(f"{t} on {b}" for b, t in zip(benchmarks, told, strict=True)) if mixed else ""
    note = " ".join([_by_steps(cells, benchmarks), _at_equal_optimization(cells, benchmarks)])
    return Built(f"q5 - q1 {where}", estimate, "", note=note, veto=veto, unpooled=unpooled)


def _by_steps(cells: Grid, benchmarks: list[str]) -> str:
    """Chain 5 against 5 votes: does the chain pay, or do the calls?"""
    if not all((b, o, 5) in cells.vote for b in benchmarks for o in cells.optimizers):
        return "vote 5 was not run: whether steps pay or calls do is open."
    weighted = score_at(cells, 5, 1.0, benchmarks) + score_at(cells, 5, -1.0, benchmarks, cells.vote)
    one = contrast(weighted, cells.between_runs)
    pays = "pays by steps" if one.effect > 0 and one.p < SIGNIFICANCE else "pays by calls, or not shown"
    return f"chain 5 - vote 5: {_points(one)}: {pays}."


def _at_equal_optimization(cells: Grid, benchmarks: list[str]) -> str:
    if not all((b, o, 5) in cells.early for b in benchmarks for o in cells.optimizers):
        return ""
    weighted = score_at(cells, 5, 1.0, benchmarks, cells.early) + score_at(cells, 1, -1.0, benchmarks)
    return f"q5 at a fifth of the budget - q1: {_points(contrast(weighted, cells.between_runs))}."


def _h2(cells: Grid) -> Built:
    where, bend, unpooled = _contrast(cells, [(3, 1.0), (1, -0.5), (5, -0.5)])
    if bend is None:
        return Built("(q3 - q1)/2 - (q5 - q3)/2", None, _not_run("1, 3 and 5"))
    rise = contrast(
        [x for k, w in ((3, 1.0), (1, -1.0)) for x in score_at(cells, k, w, _complete(cells, (1, 3, 5)))],
        cells.between_runs,
    )
    veto = "" if rise.p < SIGNIFICANCE and rise.effect > 0 else "no rise from 1 to 3 steps is shown that could diminish"
    note = "A curve that flattens, not a corner at 3: a logarithm bends too."
    return Built(f"(q3 - q1)/2 - (q5 - q3)/2 {where}", bend, "", rise, note, veto, unpooled)


def _h3(cells: Grid) -> Built:
    pair = ("gepa", "mipro")
    name = "(GEPA - MIPROv2 at 5) - (GEPA - MIPROv2 at 1)"
    benchmarks = [b for b in cells.benchmarks if all(cells.has(b, o, (1, 5)) for o in pair)]
    if len(benchmarks) < 2:
        return Built(name, None, _not_run("1 and 5, with both optimizers,"))
    if {(b, o, k) for b in benchmarks for o in pair for k in (1, 5)} & cells.flagged:
        return Built(name, None, "not compared: a cell's rollouts are outside 80 to 100 % of its budget")
    signs = ((5, "gepa", 1.0), (5, "mipro", -1.0), (1, "gepa", -1.0), (1, "mipro", 1.0))
    weighted = [(w / len(benchmarks), cells.arms[(b, o, k)]) for b in benchmarks for k, o, w in signs]
    note = _main_effect(cells, benchmarks, "mipro", "MIPROv2")
    if all(cells.has(b, "mipro_instruct", (1, 5)) for b in benchmarks):
        note += " " + _main_effect(cells, benchmarks, "mipro_instruct", "MIPROv2 without demos")
    between = cells.between_runs
    return Built(f"{name} on {', '.join(benchmarks)}", contrast(weighted, between), note=note,
                 unpooled=contrast(weighted, between, pooled=False))  # fmt: skip


def _main_effect(cells: Grid, benchmarks: list[str], other: str, its_name: str) -> str:
    share = 1 / (2 * len(benchmarks))
    weighted = [
        (sign * share, cells.arms[(b, o, k)])
        for b in benchmarks
        for k in (1, 5)
        for o, sign in (("gepa", 1), (other, -1))
    ]
    return f"GEPA - {its_name} over both: {_points(contrast(weighted, cells.between_runs))}."


def _h4(cells: Grid) -> Built:
    complete = _complete(cells, (1, 5))
    by_class = {c: [b for b in complete if cells.task_class.get(b) == c] for c in ("reasoning", "classification")}
    name = "(q5 - q1 on reasoning) - (q5 - q1 on classification)"
    if not all(by_class.values()):
        return Built(name, None, "not run: needs a reasoning and a classification benchmark at 1 and 5 steps")
    weighted = _five_minus_one(cells, by_class["reasoning"])
    weighted += [(-w, arm) for w, arm in _five_minus_one(cells, by_class["classification"])]
    estimate = contrast(weighted, cells.between_runs)
    where = "; ".join(f"{c}: {', '.join(names)}" for c, names in by_class.items())
    return Built(f"{name}: {where}", estimate, veto=_other_scales(cells, by_class, estimate.effect),
                 unpooled=contrast(weighted, cells.between_runs, pooled=False))  # fmt: skip


def _other_scales(cells: Grid, by_class: dict[str, list[str]], effect: float) -> str:
    """Why the sign may be the scale's doing: it must hold with exact match and on the logit scale."""
    exact = {key: cells.exact.get(key, arm) for key, arm in cells.arms.items()}
    for scale, arms, value in (("exact match", exact, lambda q: q), ("the logit scale", cells.arms, _logit)):
        change = {
            c: np.mean([value(_mean(cells, arms, b, 5)) - value(_mean(cells, arms, b, 1)) for b in names])
            for c, names in by_class.items()
        }
        if np.sign(change["reasoning"] - change["classification"]) != np.sign(effect):
            return f"the sign turns on {scale}"
    return ""


def _five_minus_one(cells: Grid, benchmarks: list[str]) -> list[tuple[float, Arm]]:
    return score_at(cells, 5, 1.0, benchmarks) + score_at(cells, 1, -1.0, benchmarks)


def _mean(cells: Grid, arms: dict[Key, Arm], benchmark: str, steps: int) -> float:
    return float(np.mean([arms[(benchmark, o, steps)].mean for o in cells.optimizers]))


def _logit(q: float) -> float:
    q = min(max(q, 0.005), 0.995)  # a score of 0 or 1 has no logit
    return float(np.log(q / (1 - q)))


def _p_sup(one: Built) -> float:
    if one.estimate is None:
        return 1.0
    return max(one.estimate.p, one.rise.p) if one.rise else one.estimate.p


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
    row |= {"level": e.level, "n": e.n, "runs": e.runs, "detectable": e.detectable}
    between = cells.between_runs
    run_df = min((between[o].df for o in cells.optimizers if o in between), default=0)
    if e.runs < 2 or run_df < FEWEST_RUN_DF:
        return row | {"reason": "too few runs: one run says nothing about the next one"}
    row |= {"to_settle": settling_size(e, smallest), "reason": one.veto, "note": _said(one)}
    if one.veto:
        return row | {"verdict": "mixed" if one.veto.startswith("mixed") else "cannot tell"}
    if name == "H3":
        row["verdict"] = "supported" if p_holm < SIGNIFICANCE else "contradicted" if p_con < 0.025 else "cannot tell"
        prefers = f"{'GEPA' if e.effect > 0 else 'MIPROv2'} prefers more steps" if p_holm < SIGNIFICANCE else ""
        return row | {"reason": prefers}
    return row | {"verdict": verdict(e, p_holm, p_con)}


def _said(one: Built) -> str:
    """What the sentence always adds, and the check with each cell's own variance between runs."""
    parts = [one.note]
    if one.unpooled is not None:
        parts.append(f"With each cell's own variance between runs: {_points(one.unpooled)}.")
    return " ".join(part for part in parts if part)


def _points(e: Estimate) -> str:
    return f"{100 * e.effect:+.1f} [{100 * e.low:+.1f}, {100 * e.high:+.1f}]"
