"""All tables of the report in their order; those about tests and fits are made here. A new table is one entry."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator

import pandas as pd

from scaling.analysis import breakdowns, cell_tables, gain_tables, mipro_table, model_tables, transfer_views
from scaling.analysis.answers import Answer
from scaling.analysis.families import FAMILIES
from scaling.analysis.findings import Findings
from scaling.analysis.hypotheses import HYPOTHESES
from scaling.analysis.test_rows import frame_of
from scaling.analysis.text import UNKNOWN, Table, count, interval_text, percent, table_of
from scaling.analysis.verdicts import CANNOT_TELL
from scaling.planning.questions import UNIT_SIZE

MOST_CONTRASTS = 8  # of a question in the table of verdicts; more have a table of their own
DECIDED = ("supported", "contradicted", "better", "worse", "mixed")  # more rows have nothing to settle
# Comparison of correlations: their effect is no difference of scores.
CORRELATIONS = "RQ2"


def tables_of(f: Findings) -> list[Table]:
    """All tables of the report in their order; empty ones are left out, but never the verdicts."""
    about_scores = [] if f.summary.empty else [build(f) for build in OF_SCORES]
    families = [] if f.summary.empty else [_family(f, name) for name in FAMILIES]
    parts = [] if f.summary.empty else breakdowns.tables(f)
    moved = transfer_views.table(f)
    last = [
        _fits(f),
        cell_tables.left_out(f.results),
        cell_tables.missing(f.results),
        cell_tables.against_estimate(f.results),
    ]
    return [verdicts(f), *(table for table in (*about_scores, moved, *parts, *families, *last) if table.rows)]


def verdicts(f: Findings) -> Table:
    """The questions that were asked, with what decides each of their contrasts."""
    four = f.tests[f.tests["family"].str.startswith(HYPOTHESES) & f.tests["asks"].isin(_asked(f))]
    several = four["family"].nunique() > 1
    power = "; ".join(
        f"{row['question'].split()[0]}{_model(row) if several else ''} {100 * row['detectable']:.0f}"
        for _, row in four[four["detectable"].notna() & four["answerable"]].iterrows()
    )
    note = "Intervals are 95 %, each for its number alone; the verdict follows Holm's p over the four (plan.txt)."
    note = note if len(four) else "Intervals are 95 %, each for its number alone; the verdict follows Holm's p."
    if power:
        note = f"Effects that the rule would show with 80 % power, Holm included, in points: {power}. {note}"
    return table_of("Verdicts", note, [row for answer in f.answers for row in _answered(answer, several)])


def _asked(f: Findings) -> list[str]:
    return [answer.question.name for answer in f.answers]


def _answered(answer: Answer, several_models: bool) -> Iterator[dict[str, str]]:
    """A row a contrast; one for a question without any, and one for a question that has a table of its own."""
    columns = ["verdict", "contrast", "effect (points)", "95 % interval", "Holm p", "level", "n x runs", "to settle",
               "why"]  # fmt: skip
    empty = {"question": answer.question.sentence} | dict.fromkeys(columns, UNKNOWN)
    if not answer.rows:
        yield empty | {"verdict": CANNOT_TELL, "why": "; ".join(answer.missing)}
    elif len(answer.rows) > MOST_CONTRASTS or answer.rows[0].family in FAMILIES:
        words = ", ".join(f"{times} {word}" for word, times in Counter(row.verdict for row in answer.rows).items())
        yield empty | {"verdict": words, "contrast": f"{len(answer.rows)}, in a table of their own"}
    else:
        for _, row in frame_of(answer.rows).iterrows():
            family = str(row["family"])
            whose = _model(row) if several_models and family.startswith(HYPOTHESES) else ""
            texts = _test(row) | {"contrast": row["comparison"]}
            if UNIT_SIZE[answer.question.unit] == 1:
                texts |= _no_points(row, answer.question.unit)
            yield {"question": answer.question.sentence + whose} | _pick(texts, columns)


def _no_points(row: pd.Series, unit: str) -> dict[str, str]:
    """The effect and interval of what is no difference of scores."""
    low, high = row["ci_low"], row["ci_high"]
    return {
        "effect (points)": count(row["effect"], f"{{:+.2f}} ({unit})"),
        "95 % interval": UNKNOWN if pd.isna(low) else f"[{low:+.2f}, {high:+.2f}]",
    }


def _model(row: pd.Series) -> str:
    """' (model)' of a family that is one of several."""
    return f" ({row['family'].removeprefix(HYPOTHESES).strip(' ()')})"


def research(f: Findings) -> Table:
    """RQ1 to RQ4."""
    note = (
        "Units are models of published size. RQ1 and RQ3 are one Holm family; RQ2 is exploratory (plan.txt, section "
        "10). The effect of RQ1 and RQ3 is in points for ten times the size; that of RQ2 is a rank correlation from -1 "
        "to 1."
    )
    shown = f.tests[f.tests["family"].str.startswith("RQ")]
    columns = ["comparison", "verdict", "effect", "95 % interval", "Holm p", "models", "why"]
    rows = [{"question": row["question"]} | _pick(_research(row), columns) for _, row in shown.iterrows()]
    return table_of("Research questions", note, rows)


OF_SCORES: list[Callable[[Findings], Table]] = [
    cell_tables.scores, model_tables.scores, model_tables.by_dataset, cell_tables.unequal, cell_tables.money,
    model_tables.costs, mipro_table.table, cell_tables.corrections, gain_tables.by_model, gain_tables.by_task,
    research, cell_tables.optimism,
]  # fmt: skip


def _research(row: pd.Series) -> dict[str, str]:
    texts = _test(row)
    effect = texts["effect (points)"]
    if row["family"].startswith(CORRELATIONS):
        effect = count(row["effect"], "{:+.2f}")
    return texts | {"effect": effect, "models": count(row["n"])}


def _family(f: Findings, family: str) -> Table:
    """An exploratory table: one comparison a row."""
    tests = f.tests[f.tests["family"] == family]
    columns = ["comparison", "verdict", "effect (points)", "95 % interval", "Holm p", "level", "n x runs", "to settle"]
    rows = [_test(row) for _, row in tests.iterrows()]
    if any(row["why"] for row in rows):
        columns.append("why")
    title = family[0].upper() + family[1:]
    return table_of(title, _family_note(f, tests), [_pick(row, columns) for row in rows])


def _family_note(f: Findings, tests: pd.DataFrame) -> str:
    tested = tests[tests["detectable"].notna()]
    if tested.empty:
        return "Exploratory."
    middle = tested.iloc[(tested["detectable"] - tested["detectable"].median()).abs().argmin()]
    able = f"The middle comparison can show {100 * middle['detectable']:.0f} points or more (80 % power, Holm included)"
    size = middle["to_settle"]
    if not isinstance(size, str):
        return f"Exploratory. {able}."
    return f"Exploratory. {able}. To show 5 points: {size} a cell{_its_cost(f.summary, size)}."


def _its_cost(summary: pd.DataFrame, size: str) -> str:
    """What that many rows and runs would cost in one cell, by these records; nothing where prices are 0 or unknown."""
    numbers = [re.search(rf"([\d,]+) {unit}", size) for unit in ("rows", "runs")]
    if None in numbers or not (summary["usd_per_example"] > 0).all():
        return ""
    rows, runs = (float(number[1].replace(",", "")) for number in numbers if number)
    a_run = summary["usd_optimize"].mean() + 2 * rows * summary["usd_per_example"].mean()
    return f", ${runs * a_run:.2f} at the cost of these records"


def _test(row: pd.Series) -> dict[str, str]:
    size = UNKNOWN if pd.isna(row["n"]) or pd.isna(row["runs"]) else f"{row['n']:.0f} x {row['runs']:.0f}"
    return {
        "comparison": row["comparison"],
        "verdict": row["verdict"],
        "effect (points)": percent(row["effect"], sign=True),
        "95 % interval": interval_text(row["ci_low"], row["ci_high"], sign=True),
        "Holm p": UNKNOWN if pd.isna(row["p_holm"]) else f"{row['p_holm']:.3f}",
        "level": _text(row["level"]) or UNKNOWN,
        "n x runs": size,
        "to settle": UNKNOWN if row["verdict"] in DECIDED else _text(row["to_settle"]) or UNKNOWN,
        "why": ". ".join(text for text in (_text(row["reason"]), _text(row["note"])) if text),
    }


def _fits(f: Findings) -> Table:
    note = (
        "With 3 or 4 numbers of steps a shape is named and no family of curves; with 5, every family that the points "
        "do not reject. R2 is a description and decides nothing. An exponent needs 5 published sizes over 1.5 decades "
        "and a bounded set without 0."
    )
    return table_of("Shapes and fits", note, [_fit(row) for _, row in f.fits.iterrows()])


def _fit(row: pd.Series) -> dict[str, str]:
    low, high = row["ci_low"], row["ci_high"]
    return {
        "series": row["benchmark"],
        "over": row["x"],
        "family": _text(row["family"]),
        "verdict": row["verdict"],
        "parameters": _text(row["parameters"]),
        "95 % set": UNKNOWN if pd.isna(low) else f"[{low:.3g}, {high:.3g}]",
        "R2": UNKNOWN if pd.isna(row["r2"]) else f"{row['r2']:.2f}",
        "why": _text(row["reason"]),
    }


def _pick(row: dict[str, str], columns: list[str]) -> dict[str, str]:
    return {name: row[name] for name in columns}


def _text(value: str | float | None) -> str:
    """A text of a frame; "" for one that is not there."""
    return value if isinstance(value, str) else ""
