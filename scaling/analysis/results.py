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

from scaling.analysis.stats import Arm
from scaling.store import CURVE, PREDICTIONS, read_json, read_lines, read_plans, read_records
from scaling.types import PIPELINE_SUFFIX, UsageError

# What two cells must share before their scores are compared; those of a benchmark may differ from another's.
SHARED = ["model", "optimizer_model", "rollout_budget", "temperature", "max_output_tokens", "feedback", "seed"]
SHARED_IN_BENCHMARK = ["train_size", "val_size", "select_size", "test_sha256", "closed_book"]
OF_HOSTED_JOBS = ["synth_mode", "synth_rollouts"]
SERIES = ["benchmark", "pipeline", "optimizer", *SHARED, *SHARED_IN_BENCHMARK, *OF_HOSTED_JOBS]
LOWEST_USED_SHARE = 0.80
CURVE_FIELDS = ("rollouts", "lm_calls", "list_cost_usd", "candidate_val_score", "best_val_score")
# cached_tokens are part of prompt_tokens, reasoning_tokens of completion_tokens.
TOKEN_KINDS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
USAGE_FIELDS = ("calls", "cache_hits", "prompt_tokens", "completion_tokens", "list_cost_usd", "billed_cost_usd")


@dataclass(frozen=True)
class Answers:
    """One program's scored answers in one cell: ids and groups (n,), scores (n,) with NaN where there is none."""

    items: np.ndarray
    groups: np.ndarray
    scores: np.ndarray
    extra: dict[str, np.ndarray]
    turns: np.ndarray | None  # scores of each turn or draw, (n, turns), where there are any
    calls: float  # means an answered example
    tokens: float
    usd: float  # list cost an answer, every kind of token at its own price; NaN where it was not recorded
    tokens_by_kind: dict[str, float]  # means an answer by TOKEN_KINDS; NaN where a kind was not recorded


@dataclass
class Results:
    """All records of some folders: `cells` (a row a cell) and what lies beside each record."""

    cells: pd.DataFrame
    folders: dict[str, Path]  # row key -> the cell's folder
    estimates: dict[str, dict[str, Any]]  # cell_id -> what it was estimated at before it ran

    def answers(self, key: str) -> dict[str, Answers]:
        """Program name -> its answers, read once."""
        if key not in self._answers:
            self._answers[key] = self._read(key)
        return self._answers[key]

    def arm(self, keys: list[str], program: str = "final", metric: str | None = None) -> Arm | None:
        """The runs of one series at one number of steps on the items that all of them scored; None when there are none.

        metric: an extra metric's name in place of the score.
        """
        found = [self.answers(key).get(program) for key in keys]
        if not found or any(one is None or (metric is not None and metric not in one.extra) for one in found):
            return None
        items = found[0].items
        columns = [one.scores if metric is None else one.extra[metric] for one in found]
        if not all(np.array_equal(one.items, items) for one in found):
            items = items[np.logical_and.reduce([np.isin(items, one.items) for one in found])]
            columns = [column[_places(one.items, items)] for one, column in zip(found, columns, strict=True)]
        scores = np.column_stack(columns)
        here = ~np.isnan(scores).any(axis=1)
        if not here.any():
            return None
        row = self.cells.loc[keys[0]]
        groups = found[0].groups[_places(found[0].items, items)]
        return Arm(row["benchmark"], row["optimizer"], items[here], groups[here], scores[here])

    def turns(self, keys: list[str]) -> np.ndarray | None:
        """Turn scores of the runs on the items of the first, shape (n, turns, runs); None where there are none."""
        found = [self.answers(key).get("final") for key in keys]
        if not found or any(one is None or one.turns is None for one in found):
            return None
        items = found[0].items
        if any(set(one.items) != set(items) for one in found):
            return None
        return np.stack([one.turns[_places(one.items, items)] for one in found], axis=2)

    def curve(self, key: str) -> dict[str, np.ndarray]:
        """One cell's learning curve as arrays by field, read once; {} when it has no point."""
        if key not in self._curves:
            path = self.folders[key] / CURVE
            points = read_json(path)["points"] if path.exists() else []
            numbers = {name: _floats([point.get(name) for point in points]) for name in CURVE_FIELDS}
            on_train = np.array([point.get("rows") == "train" for point in points])
            self._curves[key] = numbers | {"on_train": on_train} if points else {}
        return self._curves[key]

    def lines(self, key: str) -> list[dict[str, Any]]:
        """The prediction lines of one cell, as they were written."""
        return read_lines(self.folders[key] / PREDICTIONS)

    def name(self, key: str) -> str:
        """One cell for people: benchmark, steps, optimizer, model, run."""
        row = self.cells.loc[key]
        return f"{row['benchmark']} {folder_name(row)} {row['optimizer']} {row['model']} run{row['run']}"

    def _read(self, key: str) -> dict[str, Answers]:
        by_program: dict[str, list[dict[str, Any]]] = {}
        for line in self.lines(key):
            by_program.setdefault(line["program"], []).append(line)
        return {program: self._compact(lines) for program, lines in by_program.items()}

    def _compact(self, lines: list[dict[str, Any]]) -> Answers:
        """Arrays in place of lines: a thousand cells of one benchmark share one array of ids."""
        items = self._same(tuple(str(line["id"]) for line in lines))
        groups = self._same(tuple(str(line.get("group") or line["id"]) for line in lines))
        names = sorted({name for line in lines[:1] for name in line.get("extra_scores") or {}})
        extra = {name: _floats([(line["extra_scores"] or {}).get(name) for line in lines]) for name in names}
        has_turns = all(line.get("turn_scores") for line in lines)
        turns = np.array([line["turn_scores"] for line in lines], dtype=float) if has_turns else None
        answered = [line for line in lines if line.get("error") is None] or lines
        reached = [line for line in lines if line.get("error") != "infrastructure"] or lines
        return Answers(
            items, groups, _floats([line["score"] for line in lines]), extra, turns,
            calls=sum(line.get("calls") or 0 for line in answered) / len(answered),
            tokens=sum(line.get("tokens") or 0 for line in lines) / len(lines),
            usd=_mean(reached, "list_cost_usd"), tokens_by_kind={kind: _mean(reached, kind) for kind in TOKEN_KINDS},
        )  # fmt: skip

    def _same(self, values: tuple[str, ...]) -> np.ndarray:
        return self._arrays.setdefault(values, np.array(values))

    def __post_init__(self) -> None:
        self._answers: dict[str, dict[str, Answers]] = {}
        self._arrays: dict[tuple[str, ...], np.ndarray] = {}
        self._curves: dict[str, dict[str, np.ndarray]] = {}


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
    plans = read_plans(folders)
    recorded = {record["cell_id"] for _, record in records}
    for cell_id in sorted(set(plans) - recorded):
        never = {"cell_id": cell_id, "cell": plans[cell_id]["cell"], "status": "not run"}
        rows.append({"key": f"{cell_id}#"} | cell_row(never | {"error": {"message": "planned, no record yet"}}))
    cells = pd.DataFrame(rows).set_index("key")
    cells = cells[~cells.duplicated(subset=["cell_id", "status"], keep="first")]
    return Results(cells, places, plans)


def cell_row(record: dict[str, Any]) -> dict[str, Any]:
    """A record as one flat row; absent fields are null."""
    cell, data, usage = record["cell"], record.get("data") or {}, record.get("usage") or {}
    row = dict(cell) | {
        name: record.get(name)
        for name in (
            "cell_id", "status", "split", "n", "level", "sample", "note", "unchanged", "task_class", "baseline_score",
            "final_score", "improvement", "at_equal_calls_score", "check_score", "check_n",
            "val_baseline_score", "val_final_score",
            "rollouts_used", "lm_calls_per_example", "elapsed_seconds", "optimize_seconds",
        )
    }  # fmt: skip
    row["closed_book"] = bool(cell.get("closed_book"))
    row["synth_mode"], row["synth_rollouts"] = cell.get("synth_mode") or "offline", cell.get("synth_rollouts")
    hosted = record.get("hosted")
    row["own_score"] = hosted.get("best_score") if hosted else record.get("val_final_score")
    row["rollouts_list_cost_usd"] = (hosted or {}).get("rollouts_list_cost_usd")
    row["test_sha256"] = data.get("test_sha256")
    for phase in ("optimize", "evaluate"):
        for name in USAGE_FIELDS:
            row[f"{phase}_{name}"] = (usage.get(phase) or {}).get(name)
    for name in USAGE_FIELDS:
        row[f"proposal_{name}"] = (record.get("proposal_usage") or {}).get(name)
    for name in ("tried", "unparsed", "accepted"):
        row[f"proposals_{name}"] = (record.get("proposals") or {}).get(name)
    for name in ("infrastructure", "parse"):
        row[f"error_rate_{name}"] = (record.get("error_rates") or {}).get(name)
    row["error"] = (record.get("error") or {}).get("message")
    for name in ("parameters_billions", "parameters_status", "output_usd_per_million", "context_length"):
        row[name] = (record.get("model") or {}).get(name)
    row["used_share"] = _share(row)
    row["flagged"] = row["used_share"] is not None and not LOWEST_USED_SHARE <= row["used_share"] <= 1.0
    return row


def series_cells(results: Results) -> dict[tuple, dict[int, list[str]]]:
    """Series -> steps -> keys of its cells that are ok, one a run."""
    ok = results.cells[results.cells["status"] == "ok"]
    found: dict[tuple, dict[int, list[str]]] = {}
    for values, part in ok.groupby(SERIES, dropna=False, sort=True):
        part = part.drop_duplicates(subset=["steps", "run"]).sort_values("run")
        found[values] = {int(steps): list(same.index) for steps, same in part.groupby("steps")}
    return found


def name_of(series: tuple) -> dict[str, Any]:
    """A series' fields by name."""
    return dict(zip(SERIES, series, strict=True))


def folder_name(row: pd.Series | dict) -> str:
    """'3step', '5vote': steps and pipeline in a word."""
    return f"{row['steps']}{PIPELINE_SUFFIX.get(row['pipeline'], row['pipeline'])}"


def _share(row: dict[str, Any]) -> float | None:
    if row["optimizer"] == "none" or not row.get("rollout_budget") or row.get("rollouts_used") is None:
        return None
    return row["rollouts_used"] / row["rollout_budget"]


def _places(where: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Index of each item in `where`."""
    if where is items:
        return np.arange(len(items))
    place = {item: i for i, item in enumerate(where)}
    return np.array([place[item] for item in items], dtype=int)


def _mean(lines: list[dict[str, Any]], name: str) -> float:
    """Mean of a number over prediction lines; NaN where a line does not have it."""
    values = [line.get(name) for line in lines]
    return float("nan") if None in values else sum(values) / len(values)


def _floats(values: list[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)
