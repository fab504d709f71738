"""Hosted and local MIPRO side by side on the same test rows, and the result files that go with it.

Each program's own score (on the rows that it was selected on) stands beside ours on rows that no optimizer saw.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.stats.proportion import proportion_confint

from scaling.analysis.comparisons import Entry, entries_of, mipro_tests
from scaling.analysis.findings import Findings
from scaling.analysis.results import Results, folder_name, load
from scaling.analysis.stats import difference, run_variances, score_interval
from scaling.analysis.summary import OPTIMIZER_NAMES
from scaling.analysis.text import UNKNOWN, Table, count, interval_text, markdown_table, percent, table_of
from scaling.intervals import Interval
from scaling.store import read_json, write_json
from scaling.types import HOSTED, SCHEMA_VERSION

# Implementation -> the optimizers that are it, in the order of the table.
IMPLEMENTATIONS = {"synth_mipro": ("synth_mipro",), "dspy_mipro": ("mipro_instruct", "mipro")}
TITLE = "MIPRO side by side"
LONGEST_REASON = 120
ORDER = ("none", *(name for names in IMPLEMENTATIONS.values() for name in names))
NOTE = (
    "One model, one deal of rows, one budget of rollouts. 'Own score' is what the optimizer says of its program, on "
    "the rows that it chose on, where luck helped. Rollouts, calls, tokens, USD (list prices) and seconds are those of "
    "the optimization, a run. Of a hosted job only its rollouts' calls are seen: what its proposals use and what it "
    "bills is not known, so its dollars are 'at least'."
)


def table(f: Findings) -> Table:
    """The comparison, where a hosted optimizer is among the cells; else without rows."""
    hosted = f.results.cells["optimizer"].isin(HOSTED).any()
    return side_by_side(f.results, f.entries) if hosted else table_of(TITLE, NOTE, [])


def side_by_side(results: Results, entries: list[Entry]) -> Table:
    """The comparison: a row a program, and one for each hosted cell without a score."""
    between = run_variances([entry.final for entry in entries])
    chosen = sorted((e for e in entries if e.fields["optimizer"] in ORDER), key=lambda e: (_where(e), _place(e)))
    rows = []
    for number, entry in enumerate(chosen):
        if number == 0 or _where(chosen[number - 1]) != _where(entry):
            rows.append(_row(entry, "before optimization", {}, between, entry.base))
        if entry.fields["optimizer"] != "none":
            ends = score_interval(entry.final, between)
            rows.append(_row(entry, name_of(entry.fields), _used(results, entry, ends), between))
    return table_of(TITLE, NOTE, rows + [_missing(row) for _, row in _without_score(results)])


def name_of(fields: Any) -> str:
    """An optimizer for people, a hosted one with its mode."""
    name = OPTIMIZER_NAMES[fields["optimizer"]]
    more = {"synth_mipro": f", {fields['synth_mode']}", "mipro": ", with demos"}
    return name + more.get(fields["optimizer"], "")


def finish(folder: Path, records: list[dict[str, Any]]) -> Iterator[str]:
    """What a study of MIPRO ends with, in lines: the table, the differences, and the files that were written."""
    results = load([folder])
    mine = {record["cell_id"] for record in records}
    results.cells = results.cells[results.cells["cell_id"].isin(mine)]
    entries = entries_of(results)
    shown = side_by_side(results, entries)
    yield f"\n{markdown_table(shown.columns, shown.rows)}\n" if shown.rows else ""
    yield NOTE
    for row in mipro_tests(entries):
        why = f" ({row['reason']})" if row["reason"] else ""
        yield (
            f"{row['comparison']}: {percent(row['effect'], sign=True)} points "
            f"{interval_text(row['ci_low'], row['ci_high'], sign=True)}, Holm's p {row['p_holm']:.3f}, "
            f"{row['level']}, {row['n']} rows x {row['runs']} runs: {row['verdict']}{why}"
        )
    for path in write_exports(folder, records):
        yield f"wrote {path}"


def write_exports(folder: Path, records: list[dict[str, Any]]) -> list[Path]:
    """The records of each implementation and benchmark in one file named by the time; none that would say the same
    as the last one. Returns the paths written."""
    stamp = datetime.datetime.now().strftime("%Y%m%d_%H%M%S")
    written = []
    for implementation, optimizers in IMPLEMENTATIONS.items():
        for benchmark in sorted({record["cell"]["benchmark"] for record in records}):
            cells = [r for r in records if r["cell"]["optimizer"] in optimizers and r["cell"]["benchmark"] == benchmark]
            stem = f"{benchmark.replace('/', '-')}_{implementation}"
            known = sorted(folder.glob(f"{stem}_[0-9]*.json"))
            if not cells or (known and read_json(known[-1])["records"] == cells):
                continue
            path = folder / f"{stem}_{stamp}.json"
            while path.exists():
                path = path.with_stem(f"{path.stem}_again")
            kind = {"schema_version": SCHEMA_VERSION, "implementation": implementation, "benchmark": benchmark}
            write_json(path, kind | {"records": cells})
            written.append(path)
    return written


def _row(entry: Entry, name: str, used: dict[str, str], between: dict, arm: Any = None) -> dict[str, str]:
    """A program's row; `arm` in place of the entry's own for the program before optimization."""
    is_base = arm is not None
    arm = arm if is_base else entry.final
    low, high = score_interval(arm, {} if is_base else between) or (np.nan, np.nan)
    change = None if is_base else difference(entry.base, entry.final, between)
    same = not is_base and (entry.final.scores == entry.base.at(entry.final.items).scores).all()
    return {
        "benchmark": entry.fields["benchmark"],
        "cell": folder_name(entry.fields | {"steps": entry.steps}),
        "model": entry.fields["model"],
        "program": name,
        "test score": percent(arm.mean),
        "95 % interval": interval_text(low, high),
        "change": UNKNOWN if is_base else "same answers" if same else percent(change.effect, sign=True),
        "its interval": UNKNOWN if is_base or same else interval_text(change.low, change.high, sign=True),
        "own score": used.get("own", UNKNOWN),
        "own - test": used.get("gap", UNKNOWN),
        "interval of it": used.get("gap_interval", UNKNOWN),
        "rollouts": used.get("rollouts", UNKNOWN),
        "calls": used.get("calls", UNKNOWN),
        "tokens": used.get("tokens", UNKNOWN),
        "USD": used.get("usd", UNKNOWN),
        "seconds": used.get("seconds", UNKNOWN),
        "n x runs": f"{len(arm.items)} x {arm.runs}",
    }


def _used(results: Results, entry: Entry, test_ends: Interval | None) -> dict[str, str]:
    """Means a run of what the optimization used, and of the score that it reports itself; '—' for what is unknown."""
    cells = results.cells.loc[entry.keys]
    own = float(cells["own_score"].astype(float).mean(skipna=False))
    tokens = cells["optimize_prompt_tokens"].astype(float) + cells["optimize_completion_tokens"].astype(float)
    return {
        "own": percent(own),
        "gap": percent(own - entry.final.mean, sign=True),
        "gap_interval": _gap_interval(entry, own, test_ends),
        "rollouts": _number(cells["rollouts_used"]),
        "calls": _number(cells["optimize_calls"]),
        "tokens": _number(tokens),
        "usd": _number(cells["rollouts_list_cost_usd"], "at least {:.4f}")
        if entry.fields["optimizer"] in HOSTED
        else _number(cells["optimize_list_cost_usd"], "{:.4f}"),
        "seconds": _number(cells["optimize_seconds"], "{:.1f}"),
    }


def _gap_interval(entry: Entry, own: float, test_ends: Interval | None) -> str:
    """Of own - test: Wilson's limits of the one on its rows and those of the other, joined (Newcombe 1998, method 10).

    The rows that online mode scores on are not known here.
    """
    fields = entry.fields
    if np.isnan(own) or test_ends is None or fields["synth_mode"] == "online":
        return UNKNOWN
    asked = fields["synth_rollouts"]
    rows = fields["select_size"] if asked is None or np.isnan(asked) else min(asked, fields["select_size"])
    low, high = proportion_confint(own * rows * entry.final.runs, rows * entry.final.runs, method="wilson")
    gap, test = own - entry.final.mean, entry.final.mean
    down = np.hypot(own - low, test_ends[1] - test)
    return interval_text(gap - down, gap + np.hypot(high - own, test - test_ends[0]), sign=True)


def _number(values: pd.Series, form: str = "{:,.0f}") -> str:
    return count(float(values.astype(float).mean(skipna=False)), form)


def _without_score(results: Results) -> Iterator[tuple[str, pd.Series]]:
    cells = results.cells
    yield from cells[cells["optimizer"].isin(HOSTED) & (cells["status"] != "ok")].iterrows()


def _missing(cell: pd.Series) -> dict[str, str]:
    """A hosted cell that has no score, with the reason in the place of the numbers."""
    said = {"benchmark": cell["benchmark"], "cell": folder_name(cell), "model": cell["model"]}
    return said | {
        "program": f"{name_of(cell)}, run{cell['run']}: {cell['status']} ({str(cell['error'])[:LONGEST_REASON]})",
        **dict.fromkeys(
            ("test score", "95 % interval", "change", "its interval", "own score", "own - test", "interval of it",
             "rollouts", "calls", "tokens", "USD", "seconds", "n x runs"), UNKNOWN,
        ),
    }  # fmt: skip


def _where(entry: Entry) -> tuple:
    """What the programs of one comparison share."""
    return tuple(str(v) for n, v in entry.fields.items() if n not in ("optimizer", "synth_mode", "synth_rollouts")) + (
        str(entry.steps),
    )


def _place(entry: Entry) -> tuple:
    return ORDER.index(entry.fields["optimizer"]), entry.fields["synth_mode"]
