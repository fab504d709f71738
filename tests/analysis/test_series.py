"""A series and its relations: what differs in one field only is found, and what differs in more is not."""

from __future__ import annotations

from dataclasses import asdict, fields, replace

import numpy as np
import pytest

from scaling.analysis.comparisons import Entry
from scaling.analysis.fit_table import fits_frame
from scaling.analysis.series import OF_OPTIMIZER, SERIES, SHARED, SHARED_IN_BENCHMARK, SeriesKey
from scaling.types import Cell
from simulations.data import arms

KEY = SeriesKey(
    benchmark="x", pipeline="chain", optimizer="gepa", model="m", optimizer_model="p", rollout_budget=100,
    temperature=0.7, max_output_tokens=100, feedback="none", seed=0, train_size=10, val_size=10, select_size=5,
    test_sha256="t", closed_book=False, pilot=False, benchmark_version="1", labels=None,
    synth_mode="offline", synth_rollouts=None,
)  # fmt: skip
RELATIONS = {
    "across_optimizers": {
        "optimizer", "optimizer_options", "start", "frozen_roles", "synth_mode", "synth_rollouts",
    },
    "across_transfers": {
        "optimizer", "optimizer_options", "optimizer_model", "start", "frozen_roles", "synth_mode", "synth_rollouts",
        "stop_when_flat",
    },
    "across_models": {"model", "optimizer_model", "max_output_tokens", "temperature", "reasoning_effort"},
    "across_programs": {"pipeline", "optimizer", "optimizer_options", "start", "frozen_roles", "stop_when_flat"},
    "across_controls": {"pipeline", "feedback"},
    "equal_terms": {
        "pipeline", "optimizer", "optimizer_options", "start", "frozen_roles", "synth_mode", "synth_rollouts",
    },
    "across_benchmarks": {
        "benchmark", "train_size", "val_size", "select_size", "test_sha256", "closed_book", "benchmark_version",
        "labels", "draws",
    },
}  # fmt: skip


def test_every_field_of_a_cell_tells_two_series_apart_or_is_what_a_series_runs_over() -> None:
    """A new field of a cell belongs into one of these lists."""
    runs_over, told_by_test_rows = {"steps", "run"}, {"test_size", "data", "data_sha256"}
    told_by_start = {"start_from", "start_sha256", "start_cell"}
    of_cells = {field.name for field in fields(Cell)} - runs_over - told_by_test_rows - told_by_start
    assert set(SERIES) - {"test_sha256", "start"} == of_cells
    lists = [["benchmark", "pipeline", "optimizer"], SHARED, SHARED_IN_BENCHMARK, OF_OPTIMIZER]
    assert sorted(name for names in lists for name in names) == sorted(SERIES)


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("field", SERIES)
def test_a_relation_looks_at_every_field_but_its_own(relation: str, field: str) -> None:
    other = KEY.same_but(**{field: "other"})
    assert other != KEY
    shares = getattr(other, relation) == getattr(KEY, relation)
    assert shares == (field in RELATIONS[relation])


def test_what_a_row_lacks_is_none_and_equal_to_none() -> None:
    row = asdict(KEY) | {"labels": float("nan"), "more": 1}
    del row["synth_rollouts"]
    assert SeriesKey.of(row) == KEY and hash(SeriesKey.of(row)) == hash(KEY)


def test_optimized_programs_are_fitted_over_size_by_their_improvement() -> None:
    """Scores have fits of their own (`score_fits`)."""
    entries = []
    for place, (optimizer, gain) in enumerate((("none", 0.0), ("gepa", 0.1))):
        for size in (1.0, 10.0, 100.0):
            rng = np.random.default_rng((place, int(size)))
            means = {("x", "none", 1): 0.4, ("x", optimizer, 2): 0.4 + gain}
            base, final = arms(rng, means, 200, 3, 0.0).values()
            series = KEY.same_but(optimizer=optimizer, model=f"m{size}")
            base = replace(base, optimizer="none")
            entries.append(Entry(series, 1, ["r0", "r1", "r2"], final, base, (size, "published")))
    names = fits_frame(entries)["benchmark"].unique().tolist()
    assert names == ["x 1 chain gepa: improvement"]
