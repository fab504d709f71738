"""Hosted and local MIPRO side by side on the same test rows, and the result files that go with it.

Each program's own score (on the rows that it was selected on) stands beside ours on rows that no optimizer saw.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from scaling.analysis.comparisons import Entry, entries_of
from scaling.analysis.families import mipro_tests
from scaling.analysis.findings import Findings
from scaling.analysis.loading import load
from scaling.analysis.pairs import difference
from scaling.analysis.results import Results, folder_name
from scaling.analysis.stats import RunVariance, run_variances, score_interval
from scaling.analysis.text import UNKNOWN, Table, count, interval_text, markdown_table, percent, table_of
from scaling.intervals import Interval
from scaling.planning.optimizers import hosted_names, is_hosted, label_of
from scaling.records.codec import as_plain
from scaling.records.record import Record
from scaling.records.store import read_json, write_json
from scaling.types import SCHEMA_VERSION

# Implementation -> the optimizers that are it, in the order of the table.
IMPLEMENTATIONS = {"synth_mipro": ("synth_mipro",), "dspy_mipro": ("mipro_instruct", "mipro")}
TITLE = "MIPRO side by side"
LONGEST_REASON = 120
ORDER = ("none", *(name for names in IMPLEMENTATIONS.values() for name in names))
COLUMNS = (
    "benchmark", "cell", "model", "program", "test score", "95 % interval", "change", "its interval", "own score",
    "own - test", "interval of it", "rollouts", "calls", "tokens", "USD", "seconds", "n x runs",
)  # fmt: skip
NOTHING = dict.fromkeys(COLUMNS, UNKNOWN)
NOTE = (
    "One model, the same splits, one budget of rollouts. 'Own score' is what the optimizer says of its program, on "
    "the rows that it chose on, where luck helped. Rollouts, calls, tokens, USD (list prices) and seconds are those of "
    "the optimization, a run. Of a hosted job only its rollouts' calls are seen: what its proposals use and what it "
    "bills is not known, so its dollars are 'at least'."
)


def table(f: Findings) -> Table:
    """The comparison, where a hosted optimizer is among the cells; else without rows."""
    hosted = f.results.cells["optimizer"].isin(hosted_names()).any()
    return side_by_side(f.results, f.entries) if hosted else table_of(TITLE, NOTE, [])


def side_by_side(results: Results, entries: list[Entry]) -> Table:
    """The comparison: a row a program, and one for each hosted cell without a score."""
    pooled = run_variances([entry.final for entry in entries])
    chosen = sorted((e for e in entries if e.series.optimizer in ORDER), key=lambda e: (_shared(e), _place(e)))
    rows = []
    for number, entry in enumerate(chosen):
        if number == 0 or _shared(chosen[number - 1]) != _shared(entry):
            rows.append(_baseline_row(entry))
        if entry.series.optimizer != "none":
            rows.append(_optimized_row(results, entry, pooled))
    return table_of(TITLE, NOTE, rows + [_missing(cell) for cell in _without_score(results)])


def program_name(optimizer: str, synth_mode: str) -> str:
    """An optimizer for people, a hosted one with its mode."""
    more = {"synth_mipro": f", {synth_mode}", "mipro": ", with demos"}
    return label_of(optimizer) + more.get(optimizer, "")


def finish(folder: Path, records: list[Record]) -> Iterator[str]:
    """What a study of MIPRO ends with, in lines: the table, the differences, and the files that were written."""
    results = load([folder])
    mine = {record.cell_id for record in records}
    results.cells = results.cells[results.cells["cell_id"].isin(mine)]
    entries = entries_of(results)
    shown = side_by_side(results, entries)
    yield f"\n{markdown_table(shown.columns, shown.rows)}\n" if shown.rows else ""
    yield NOTE
    for row in mipro_tests(entries):
        why = f" ({row.reason})" if row.reason else ""
        p_holm = "—" if row.p_holm is None else f"{row.p_holm:.3f}"
        yield (
            f"{row.comparison}: {percent(row.effect, sign=True)} points "
            f"{interval_text(row.ci_low, row.ci_high, sign=True)}, Holm's p {p_holm}, "
            f"{row.level}, {row.n} rows x {row.runs} runs: {row.verdict}{why}"
        )
    for path in write_exports(folder, records):
        yield f"wrote {path}"


def write_exports(folder: Path, records: list[Record]) -> list[Path]:
    """The records of each implementation and benchmark in one file named by the time; none that would say the same
    as the last one. Returns the paths written."""
    stamp = datetime.datetime.now().strftime("%Y%m%d_%H%M%S")
    written = []
    for implementation, optimizers in IMPLEMENTATIONS.items():
        for benchmark in sorted({record.cell.benchmark for record in records}):
            mine = [r for r in records if r.cell.optimizer in optimizers and r.cell.benchmark == benchmark]
            cells = [as_plain(record) for record in mine]
            stem = f"{benchmark.replace('/', '-')}_{implementation}"
            known = sorted(folder.glob(f"{stem}_[0-9]*.json"))
            if not cells or (known and read_json(known[-1]).get("records") == cells):
                continue
            path = folder / f"{stem}_{stamp}.json"
            while path.exists():
                path = path.with_stem(f"{path.stem}_again")
            kind = {"schema_version": SCHEMA_VERSION, "implementation": implementation, "benchmark": benchmark}
            write_json(path, kind | {"records": cells})
            written.append(path)
    return written


def _baseline_row(entry: Entry) -> dict[str, str]:
    """The program before optimization."""
    ends = score_interval(entry.base, {}) or (np.nan, np.nan)
    named = _named(asdict(entry.series) | {"steps": entry.steps}, "before optimization")
    scored = {"test score": percent(entry.base.mean), "95 % interval": interval_text(*ends)}
    return NOTHING | named | scored | {"n x runs": f"{len(entry.base.items)} x {entry.base.runs}"}


def _optimized_row(results: Results, entry: Entry, pooled: Mapping[str, RunVariance]) -> dict[str, str]:
    """A program after optimization: its scores, its change, and means a run of what the optimization used."""
    ends = score_interval(entry.final, pooled)
    change = difference(entry.base, entry.final, pooled)
    same = not entry.changed
    changed = {"change": "same answers"} if same else {
        "change": percent(change.effect, sign=True),
        "its interval": interval_text(change.low, change.high, sign=True),
    }  # fmt: skip
    scored = {"test score": percent(entry.final.mean), "95 % interval": interval_text(*(ends or (np.nan, np.nan)))}
    program = program_name(entry.series.optimizer, entry.series.synth_mode)
    named = _named(asdict(entry.series) | {"steps": entry.steps}, program)
    size = {"n x runs": f"{len(entry.final.items)} x {entry.final.runs}"}
    return NOTHING | named | scored | changed | _used(results, entry, ends) | size


def _named(fields: dict[str, Any] | pd.Series, program: str) -> dict[str, str]:
    return {
        "benchmark": fields["benchmark"], "cell": folder_name(fields), "model": fields["model"], "program": program,
    }  # fmt: skip


def _used(results: Results, entry: Entry, test_ends: Interval | None) -> dict[str, str]:
    """Means a run of what the optimization used, and of the score that it reports itself; '—' for what is unknown."""
    cells = results.cells.loc[entry.keys]
    own = float(cells["own_score"].astype(float).mean(skipna=False))
    tokens = cells["optimize_prompt_tokens"].astype(float) + cells["optimize_completion_tokens"].astype(float)
    dollars = ("optimize_list_cost_usd", "{:.4f}")
    if is_hosted(entry.series.optimizer):
        dollars = ("rollouts_list_cost_usd", "at least {:.4f}")
    return {
        "own score": percent(own),
        "own - test": percent(own - entry.final.mean, sign=True),
        "interval of it": _gap_interval(entry, own, test_ends),
        "rollouts": _number(cells["rollouts_used"]),
        "calls": _number(cells["optimize_calls"]),
        "tokens": _number(tokens),
        "USD": _number(cells[dollars[0]], dollars[1]),
        "seconds": _number(cells["optimize_seconds"], "{:.1f}"),
    }


def _gap_interval(entry: Entry, own: float, test_ends: Interval | None) -> str:
    """Of own - test: Wilson's limits of the one on its rows and those of the other, joined (Newcombe 1998, method 10).

    The rows that online mode scores on are not known here.
    """
    series = entry.series
    if np.isnan(own) or test_ends is None or series.synth_mode == "online":
        return UNKNOWN
    rows = min(series.synth_rollouts or series.select_size, series.select_size)
    low, high = proportion_confint(own * rows * entry.final.runs, rows * entry.final.runs, method="wilson")
    gap, test = own - entry.final.mean, entry.final.mean
    down = np.hypot(own - low, test_ends[1] - test)
    return interval_text(gap - down, gap + np.hypot(high - own, test - test_ends[0]), sign=True)


def _number(values: pd.Series, form: str = "{:,.0f}") -> str:
    return count(float(values.astype(float).mean(skipna=False)), form)


def _without_score(results: Results) -> Iterator[pd.Series]:
    cells = results.cells
    for _, cell in cells[cells["optimizer"].isin(hosted_names()) & (cells["status"] != "ok")].iterrows():
        yield cell


def _missing(cell: pd.Series) -> dict[str, str]:
    """A hosted cell that has no score, with the reason beside its name."""
    reason = f"{cell['status']} ({str(cell['error'])[:LONGEST_REASON]})"
    return NOTHING | _named(cell, f"{program_name(cell['optimizer'], cell['synth_mode'])}, run{cell['run']}: {reason}")


def _shared(entry: Entry) -> tuple[str, ...]:
    """What the programs of one comparison share, as text that can be ordered."""
    return (*map(str, entry.series.across_optimizers), str(entry.steps))


def _place(entry: Entry) -> tuple[int, str]:
    return ORDER.index(entry.series.optimizer), str(entry.series.synth_mode)
