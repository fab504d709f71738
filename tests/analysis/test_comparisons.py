"""Exploratory tables: what is compared with what, in which family, and in which words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scaling.analysis.comparisons import (
    Entry,
    average_improvements,
    control_pairs,
    hurt_share,
    improvements,
    optimizer_pairs,
    told_apart,
)
from scaling.analysis.series import SeriesKey
from scaling.analysis.stats import Arm
from simulations.data import arms as simulated

FIELDS: dict[str, Any] = {
    "pipeline": "chain", "model": "m", "optimizer_model": "p", "rollout_budget": 100, "temperature": 0.7,
    "max_output_tokens": 100, "feedback": "none", "seed": 0, "train_size": 10, "val_size": 10, "select_size": 5,
    "test_sha256": "t", "closed_book": False,
    "benchmark_version": "1", "labels": None, "synth_mode": "offline", "synth_rollouts": None,
}  # fmt: skip


def entry(final: Arm, base: Arm, steps: int = 1, **fields: str) -> Entry:
    """One series at one number of steps, on equal terms with the others unless `fields` says otherwise."""
    series = SeriesKey.of(FIELDS | {"benchmark": final.benchmark, "optimizer": final.optimizer} | fields)
    return Entry(series, steps, [f"run{r}" for r in range(final.runs)], final, base, (None, "unknown"))


def entries_of_optimizers(names: list[str], runs: int = 3, gain: float = 0.0) -> list[Entry]:
    """Two benchmarks at one and three steps, each optimizer, `gain` above a baseline of 0.5."""
    made = []
    rng = np.random.default_rng(4)
    for benchmark in ("x", "y"):
        for steps in (1, 3):
            means = {(benchmark, name, steps): 0.5 + gain * (name != "none") for name in ["none", *names]}
            cells = simulated(rng, means, 100, runs, 0.01)
            base = cells[benchmark, "none", steps]
            made += [entry(cells[benchmark, name, steps], base, steps) for name in names]
    return made


def test_all_pairs_of_optimizers_are_compared_in_a_family_a_benchmark_and_step() -> None:
    names = ["gepa", "mipro", "bootstrap"]
    pairs = list(optimizer_pairs(entries_of_optimizers(names)))
    assert len(pairs) == 3 * 4
    assert {pair.holm for pair in pairs} == {"x, 1", "x, 3", "y, 1", "y, 3"}
    at_one = [pair.name for pair in pairs if pair.holm == "x, 1"]
    assert at_one == [
        "x 1 chain bootstrap - gepa",
        "x 1 chain bootstrap - mipro",
        "x 1 chain gepa - mipro",
    ]


def test_optimizers_on_other_terms_are_no_pair() -> None:
    made = entries_of_optimizers(["gepa", "mipro"])
    larger = [replace(e, series=e.series.same_but(rollout_budget=200)) for e in made if e.series.optimizer == "gepa"]
    other = [*larger, *(e for e in made if e.series.optimizer != "gepa")]
    assert list(optimizer_pairs(other)) == []


def test_the_mean_of_an_optimizer_stands_beside_the_share_of_cells_that_it_hurts() -> None:
    comparisons = list(average_improvements(entries_of_optimizers(["gepa", "mipro"], gain=0.2)))
    assert [c.name for c in comparisons] == ["gepa chain: mean of 4 changes", "mipro chain: mean of 4 changes"]
    estimate = comparisons[0].estimate({})
    assert estimate.effect == pytest.approx(0.2, abs=0.05) and estimate.low > 0.1
    assert estimate.n == 200 and comparisons[0].note.startswith("hurt in 0 % [0, ")


def test_hurt_counts_runs_of_cells_and_unchanged_ones_are_not_hurt() -> None:
    (first, *_) = entries_of_optimizers(["gepa"])
    down = replace(first, final=replace(first.final, scores=first.base.scores * np.array([0.5, 1.0, 0.5])))
    unchanged = replace(first, final=replace(first.final, scores=first.base.scores), steps=5)
    assert not unchanged.changed
    share = hurt_share([down, unchanged])
    assert share.startswith("hurt in 33 %") and share.endswith("of 6 cells")
    assert [c.name for c in improvements([down, unchanged])] == ["x 1 chain gepa: final - baseline"]


def test_a_chain_meets_its_controls_at_the_same_steps() -> None:
    chain = entries_of_optimizers(["gepa"])
    votes = [replace(e, series=e.series.same_but(pipeline="vote")) for e in chain if e.steps == 3]
    assert [c.name for c in control_pairs([*chain, *votes])] == ["x 3 chain gepa - vote", "y 3 chain gepa - vote"]


def test_entries_of_one_name_are_told_apart_by_what_differs() -> None:
    first, second, *_ = entries_of_optimizers(["gepa"])
    other = replace(first, series=first.series.same_but(rollout_budget=200, temperature=0.2))
    assert [e.name for e in told_apart([first, other, second])] == [
        "x 1 chain gepa (rollout_budget 100, temperature 0.7)",
        "x 1 chain gepa (rollout_budget 200, temperature 0.2)",
        "x 3 chain gepa",
    ]
