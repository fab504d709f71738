"""Records to frames: one row a cell, one matrix of scores a series, and the summary that people read.

A *series* is what may be compared over steps: benchmark, pipeline, optimizer, model, and everything that
must be equal (proposer, budget, selection rows, temperature, test rows). Cells of another series are never
averaged with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scaling.store import CURVE, PREDICTIONS, read_json, read_lines, read_plans, read_records
from scaling.types import PIPELINE_SUFFIX, UsageError

SERIES = ["benchmark", "pipeline", "optimizer", "model", "optimizer_model", "rollout_budget", "select_size",
          "temperature", "test_sha256", "closed_book"]  # fmt: skip
# What two cells must share before their scores are compared.
SHARED = ["model", "optimizer_model", "rollout_budget", "select_size", "temperature", "test_sha256", "closed_book"]
LOWEST_USED_SHARE = 0.80
USAGE_FIELDS = ("calls", "cache_hits", "prompt_tokens", "completion_tokens", "list_cost_usd", "billed_cost_usd")


@dataclass
class Results:
    """All records of some folders: `cells` (a row a cell) and what lies beside each record."""

    cells: pd.DataFrame
    folders: dict[str, Path]  # row key -> the cell's folder
    estimates: dict[str, dict[str, Any]]  # cell_id -> what it was estimated at before it ran

    def scores(self, key: str, program: str = "final", metric: str | None = None) -> pd.Series:
        """Scores of one cell's program by item id, infrastructure failures left out; shape (n,)."""
        lines = self._lines(key)
        lines = lines[lines["program"] == program]
        values = lines["score"] if metric is None else lines["extra_scores"].map(lambda e: (e or {}).get(metric))
        scores = pd.Series(values.to_numpy(dtype=float), index=lines["id"].to_numpy(), name=key)
        return scores[scores.notna()]

    def groups(self, key: str) -> pd.Series:
        """Group of each item of one cell, by id."""
        lines = self._lines(key)
        return lines[lines["program"] == "final"].set_index("id")["group"]

    def curve(self, key: str) -> pd.DataFrame:
        """Points of one cell's learning curve; empty when it has none."""
        path = self.folders[key] / CURVE
        return pd.DataFrame(read_json(path)["points"] if path.exists() else [])

    def _lines(self, key: str) -> pd.DataFrame:
        if key not in self._cache:
            self._cache[key] = pd.DataFrame(read_lines(self.folders[key] / PREDICTIONS))
        return self._cache[key]

    def __post_init__(self) -> None:
        self._cache: dict[str, pd.DataFrame] = {}


def load(folders: Iterable[Path]) -> Results:
    """Read every record under the folders. Raises UsageError, with what to run, when there is none."""
    folders = [Path(folder) for folder in folders]
    records = read_records(folders)
    if not records:
        names = ", ".join(str(folder) for folder in folders)
        raise UsageError(f"no results in {names}. Run: python run_scaling_experiment.py --quick")
    rows, places = [], {}
    for number, (path, record) in enumerate(records):
        key = f"{record['cell_id']}#{number}"
        rows.append({"key": key} | cell_row(record))
        places[key] = path.parent
    cells = pd.DataFrame(rows).set_index("key")
    cells = cells[~cells.duplicated(subset=["cell_id", "status"], keep="first")]
    return Results(cells, places, read_plans(folders))


def cell_row(record: dict[str, Any]) -> dict[str, Any]:
    """A record as one flat row; absent fields are null."""
    cell, data, usage = record["cell"], record.get("data") or {}, record.get("usage") or {}
    row = dict(cell) | {
        name: record.get(name)
        for name in (
            "cell_id", "status", "split", "n", "level", "sample", "unchanged", "task_class", "baseline_score",
            "final_score", "improvement", "at_equal_calls_score", "val_baseline_score", "val_final_score",
            "rollouts_used", "lm_calls_per_example", "elapsed_seconds",
        )
    }  # fmt: skip
    row["closed_book"] = bool(cell.get("closed_book"))
    row["test_sha256"] = data.get("test_sha256")
    for phase in ("optimize", "evaluate"):
        for name in USAGE_FIELDS:
            row[f"{phase}_{name}"] = (usage.get(phase) or {}).get(name)
    for name in ("tried", "unparsed", "accepted"):
        row[f"proposals_{name}"] = (record.get("proposals") or {}).get(name)
    for name in ("infrastructure", "parse"):
        row[f"error_rate_{name}"] = (record.get("error_rates") or {}).get(name)
    row["error"] = (record.get("error") or {}).get("message")
    row["parameters_billions"] = (record.get("model") or {}).get("parameters_billions")
    row["parameters_status"] = (record.get("model") or {}).get("parameters_status")
    row["used_share"] = _share(row)
    row["flagged"] = row["used_share"] is not None and not LOWEST_USED_SHARE <= row["used_share"] <= 1.0
    return row


def matrix(results: Results, keys: list[str], program: str = "final", metric: str | None = None) -> pd.DataFrame:
    """Scores of the runs of one series at one number of steps: rows are items, columns are runs; items in all."""
    columns = {results.cells.loc[key, "run"]: results.scores(key, program, metric) for key in keys}
    return pd.DataFrame(columns).dropna()


def series_cells(results: Results) -> dict[tuple, dict[int, list[str]]]:
    """Series -> steps -> keys of its cells that are ok, one a run."""
    ok = results.cells[results.cells["status"] == "ok"]
    found: dict[tuple, dict[int, list[str]]] = {}
    for values, part in ok.groupby(SERIES, dropna=False, sort=True):
        part = part.drop_duplicates(subset=["steps", "run"])
        found[values] = {int(s): sorted(p.index, key=lambda k: ok.loc[k, "run"]) for s, p in part.groupby("steps")}
    return found


def name_of(series: tuple) -> dict[str, Any]:
    """A series' fields by name."""
    return dict(zip(SERIES, series, strict=True))


def folder_name(row: pd.Series) -> str:
    """'3step', '5vote': steps and pipeline in a word."""
    return f"{row['steps']}{PIPELINE_SUFFIX.get(row['pipeline'], row['pipeline'])}"


def percent(value: float | None, sign: bool = False) -> str:
    """A fraction as points with one decimal; an em dash where there is none."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "—"
    return f"{100 * value:+.1f}" if sign else f"{100 * value:.1f}"


def interval_text(low: float | None, high: float | None, sign: bool = False) -> str:
    """'[62.1, 70.3]', or an em dash where there is no interval."""
    if low is None or np.isnan(low):
        return "—"
    return f"[{percent(low, sign)}, {percent(high, sign)}]"


def markdown(frame: pd.DataFrame) -> str:
    """A frame of strings as a Markdown table."""
    head = "| " + " | ".join(frame.columns) + " |"
    rule = "|" + "|".join("---" for _ in frame.columns) + "|"
    rows = ["| " + " | ".join(str(v).replace("|", "/") for v in row) + " |" for row in frame.itertuples(index=False)]
    return "\n".join([head, rule, *rows])


def _share(row: dict[str, Any]) -> float | None:
    if row["optimizer"] == "none" or not row.get("rollout_budget") or row.get("rollouts_used") is None:
        return None
    return row["rollouts_used"] / row["rollout_budget"]
