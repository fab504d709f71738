"""Tables of the report about models: their scores with size and price, by dataset, and what each cost."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from scaling.analysis.findings import Findings
from scaling.analysis.text import UNKNOWN, Table, count, interval_text, percent, table_of, usd

# Columns of a cell's row that are summed for each model; list cost where the name does not say billed.
_SUMS = {
    "calls": ["optimize_calls", "evaluate_calls"],
    "input tokens": ["optimize_prompt_tokens", "evaluate_prompt_tokens"],
    "output tokens": ["optimize_completion_tokens", "evaluate_completion_tokens"],
    "USD optimize": ["optimize_list_cost_usd"],
    "of it proposals": ["proposal_list_cost_usd"],
    "USD evaluate": ["evaluate_list_cost_usd"],
    "USD in all": ["optimize_list_cost_usd", "evaluate_list_cost_usd"],
    "USD billed": ["optimize_billed_cost_usd", "evaluate_billed_cost_usd"],
}


def scores(f: Findings) -> Table:
    """Each model's score with its size and price, and whether a cheaper one scores as high."""
    note = (
        "One program on the same rows; models from small to large. Sizes are in billions of parameters. 'Cheapest at "
        "its score' says no where another model costs no more and scores no less on these rows; 'shown' means that the "
        "pair's test in the tables below says so, too."
    )
    return table_of("Models", note, [_score(row) for _, row in f.models.iterrows()])


def _score(row: pd.Series) -> dict[str, str]:
    return {
        "benchmark": row["benchmark"],
        "program": row["program"],
        "model": row["model"],
        "size": _size(row),
        "USD for a million output tokens": count(row["output_usd_per_million"], "{:g}"),
        "USD for 1,000 answers": usd(1000 * row["usd_per_example"]),
        "score": percent(row["score"]),
        "95 % interval": interval_text(row["low"], row["high"]),
        "n x runs": f"{row['n']} x {row['runs']}",
        "cheapest at its score": _front(row),
    }


def _size(row: pd.Series) -> str:
    """'8.03', '1.8 (assumed)', or an em dash."""
    text = count(row["size"], "{:g}")
    return text if text == UNKNOWN or row["status"] == "published" else f"{text} ({row['status']})"


def _front(row: pd.Series) -> str:
    if row["on_front"] is None:
        return "a price is not known"
    return "yes" if row["on_front"] else f"no: {row['beaten_by']}"


def by_dataset(f: Findings) -> Table:
    """Each model's score on every dataset side by side."""
    note = "Points on rows that no optimizer saw, with 95 % intervals. All benchmarks count alike in their mean."
    benchmarks = list(dict.fromkeys(f.models["benchmark"]))
    groups = f.models.groupby(["program", "model"], sort=False)
    rows = [_by_dataset(str(program), str(model), part, benchmarks) for (program, model), part in groups]
    return table_of("Scores by model and dataset", note, rows if len(benchmarks) > 1 else [])


def _by_dataset(program: str, model: str, part: pd.DataFrame, benchmarks: list[str]) -> dict[str, str]:
    texts = {
        row["benchmark"]: f"{percent(row['score'])} {interval_text(row['low'], row['high'])}"
        for _, row in part.iterrows()
    }
    return {"program": program, "model": model} | {name: texts.get(name, UNKNOWN) for name in benchmarks}


def costs(f: Findings) -> Table:
    """What each model's cells used and cost: optimizing, evaluating, and in all."""
    note = (
        "Sums over all cells that have a record, those without a score included. Dollars are list cost, as if nothing "
        "came from the cache; 'billed' is what was paid. The calls of a proposer count for the model that they were "
        "made for. A sum that lacks a price is not known."
    )
    return table_of("Cost by model", note, list(_costs(f.results.cells)))


def _costs(cells: pd.DataFrame) -> Iterator[dict[str, str]]:
    used = cells[cells["evaluate_calls"].notna()]
    for model, part in used.groupby("model"):
        yield _sums(str(model), part)
    if used["model"].nunique() > 1:
        yield _sums("all", used)


def _sums(name: str, cells: pd.DataFrame) -> dict[str, str]:
    texts = {"model": name, "cells": str(len(cells))}
    for title, columns in _SUMS.items():
        total = cells[columns].astype(float).sum(axis=1, skipna=False).sum(skipna=False)
        texts[title] = usd(total) if "USD" in title or "proposals" in title else count(total, "{:,.0f}")
    return texts
