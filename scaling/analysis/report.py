"""summary_results.md, .tex and report.html from the same tables: verdicts first, then figures, tables and examples."""

from __future__ import annotations

import base64
import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from scaling.analysis import mipro_table
from scaling.analysis.comparisons import FAMILIES, Entry
from scaling.analysis.research import TurnedCell
from scaling.analysis.results import Results, interval_text, markdown, percent
from scaling.analysis.stats import Estimate
from scaling.analysis.summary import against_estimate, missing, readable, recommended, unequal
from scaling.store import PROGRAM, RECORD, read_json
from scaling.types import HOSTED

TEMPLATE = Path(__file__).parent / "report.html"
TITLE = "Quality against calls, optimizers and models"
ADOPTED_BY_LUCK = 0.05
EXAMPLES_A_CELL, CELLS_WITH_EXAMPLES = 3, 30


@dataclass(frozen=True)
class Findings:
    """Everything that was found, as frames; each report is a way of writing it down."""

    results: Results
    entries: list[Entry]
    summary: pd.DataFrame
    tests: pd.DataFrame
    fits: pd.DataFrame
    turned: list[TurnedCell]
    gains: pd.DataFrame  # of self-correction, a row a model and task
    costs: pd.DataFrame
    refused: list[str]
    value: float | None  # dollars a right answer, as the user named them
    per_dollar: bool


@dataclass(frozen=True)
class Table:
    """A table for people: what it can show stands in `note`, above it."""

    title: str
    note: str
    frame: pd.DataFrame


def tables_of(f: Findings) -> list[Table]:
    """All tables of the report in their order; empty ones are left out."""
    if f.summary.empty:
        found = [Table("Verdicts", "", _verdicts(f.tests))]
    else:
        found = [
            Table("Verdicts", _verdicts_note(f.tests), _verdicts(f.tests)),
            Table("Scores", _scores_note(f), readable(f.summary)),
            Table("What stays unequal", UNEQUAL_NOTE, unequal(f.summary)),
            Table("Money", _money_note(f), _money(f.costs)),
            Table("MIPRO side by side", mipro_table.NOTE, _mipro(f)),
            Table("Self-correction", CORRECTION_NOTE, _corrections(f)),
            Table("Research questions", RESEARCH_NOTE, _research(f.tests)),
            Table("How much selection flatters", OPTIMISM_NOTE, _optimism(f.summary)),
            *(Table(name[0].upper() + name[1:], _family_note(f, name), _family(f.tests, name)) for name in FAMILIES),
            Table("Shapes and fits", FITS_NOTE, _fits(f.fits)),
        ]
    found.append(Table("Cells without a score", "They are missing above, never 0.", missing(f.results)))
    found.append(Table("Estimate against actual", "", against_estimate(f.results)))
    return [table for table in found if not table.frame.empty]


def headline(f: Findings) -> str:
    """The first sentences: what these records can show, what they found, and what they say to H1 to H4."""
    if f.summary.empty:
        return "No cell has a score yet."
    return f"{_shown(f)} {_hypotheses(f.tests)}"


def recommendations(f: Findings) -> list[str]:
    """A sentence a benchmark: the cell chosen on rows that nobody saw, and its test score."""
    said = []
    for row in recommended(f.summary, f.per_dollar):
        rule = "the cheapest within one standard error of the best on check rows" if f.per_dollar else (
            "the best on check rows, which no optimizer saw"
        )  # fmt: skip
        score = f"{percent(row['final_score'])} {interval_text(row['final_low'], row['final_high'])}"
        said.append(
            f"{row['benchmark']}: {row['steps']} {row['pipeline']} {row['line']} is {rule} ({row['of']} cells); "
            f"its test score is {score} points ({row['level']}, n = {row['n']})."
        )
    return said


def notes_of(results: Results, summary: pd.DataFrame) -> list[str]:
    """What a reader must know before any number."""
    cells, notes = results.cells, []
    sample = cells[cells["sample"].fillna(False).astype(bool)]
    if len(sample):
        names = ", ".join(sorted(sample["benchmark"].unique()))
        notes.append(f"Sample data: {names} are small sets written for this program; no result about the tasks.")
    closed = cells[cells["closed_book"].fillna(False).astype(bool)]
    if len(closed):
        names = ", ".join(sorted(closed["benchmark"].unique()))
        notes.append(f"Closed-book: {names} also or only asked without the tables that hold the answers.")
    noted = cells[cells["note"].notna()]
    notes += [f"{name}: {note}." for name, note in sorted(set(zip(noted["benchmark"], noted["note"], strict=True)))]
    if (cells["feedback"] == "oracle").any():
        notes.append("Feedback oracle tells the model which of its answers are right: that is cheating, and no result.")
    embedded = cells[cells["model"].str.startswith("local/")]["model"].unique()
    if len(embedded):
        notes.append(
            f"{', '.join(embedded)} is a model of 135 million parameters: it shows the way, not what LLMs can do."
        )
    if not summary.empty and (summary["split"] == "check").any():
        names = ", ".join(sorted(summary[summary["split"] == "check"]["benchmark"].unique()))
        notes.append(f"{names}: no test rows, scored on check rows of val that no optimizer saw.")
    without = int((cells["status"] != "ok").sum())
    if without:
        notes.append(f"{without} of {len(cells)} cells have no score; they are missing below, not 0.")
    return notes


def write_markdown(path: Path, f: Findings) -> None:
    """summary_results.md: the same numbers as the report, for reading in a terminal."""
    parts = [f"# {TITLE}", headline(f), *[f"> {note}" for note in notes_of(f.results, f.summary)]]
    if sentences := recommendations(f):
        parts += ["## Recommended", "\n".join(f"- {one}" for one in sentences)]
    for table in tables_of(f):
        parts += [f"## {table.title}", *([table.note] if table.note else []), markdown(table.frame.astype(str))]
    parts += ["## Not compared", "\n".join(f"- {text}" for text in f.refused)] if f.refused else []
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def write_latex(path: Path, f: Findings) -> None:
    """summary_results.tex: the same tables for a paper (booktabs)."""
    path.write_text("\n\n".join(_tex_table(table) for table in tables_of(f)) + "\n", encoding="utf-8")


def _tex_table(table: Table) -> str:
    rows = [" & ".join(_tex(str(value)) for value in row) for row in (table.frame.columns, *table.frame.to_numpy())]
    label = "".join(ch if ch.isalnum() else "-" for ch in table.title.lower())
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_tex(table.title)}}}\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{{'l' * len(table.frame.columns)}}}",
            rf"\toprule {rows[0]} \\ \midrule",
            *(rf"{row} \\" for row in rows[1:]),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def write_html(path: Path, f: Findings, pictures: dict[Path, str]) -> None:
    """report.html: one file that needs no network; pictures are embedded."""
    template = jinja2.Environment(autoescape=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
    figures = [{"data": base64.b64encode(p.read_bytes()).decode(), "alt": alt} for p, alt in pictures.items()]
    tables = tables_of(f)
    text = template.render(
        title=TITLE,
        headline=headline(f),
        notes=notes_of(f.results, f.summary),
        recommendations=recommendations(f),
        verdicts=tables[0],
        tables=tables[1:],
        refused=f.refused,
        figures=figures,
        programs=list(_programs(f.results)),
        examples=list(_examples(f.results)),
        environment=_environment(f.results),
    )
    path.write_text(text, encoding="utf-8")


UNEQUAL_NOTE = (
    "Equal rollouts are not equal calls: k steps make k times the task calls, and each prompt gets 1/k of the "
    "proposals. "
    "'At equal calls' is the incumbent at budget / steps, scored on test; 'vote' makes the same calls at inference."
)
OPTIMISM_NOTE = (
    "(final - baseline on the rows that candidates were selected on) minus (final - baseline on test): above 0, "
    "selection made it look better than it is. Intervals are 95 %, wide by design."
)
CORRECTION_NOTE = (
    "Gain is the last turn minus the first on the same items. A mere redraw turns answers too, so 'beyond a redraw' "
    "subtracts the flips between two draws of the first turn (resample). 'Corrects': a gain, and more wrong answers "
    "turned right than by a redraw. 'Harms': a loss. 'Churns': more flips than a redraw makes, with neither a gain nor "
    "a loss shown. 'No more than a redraw': the gain and both kinds of flips beyond a redraw are shown to lie within 3 "
    "points of 0. All labels of this table are one Holm family; intervals are 95 % for one number alone. Feedback "
    "'oracle' tells the model which of its answers are right: that is cheating."
)
RESEARCH_NOTE = (
    "Units are models of published size; RQ1 and RQ3 are one Holm family, RQ2 is exploratory (plan.txt, 10)."
)
FITS_NOTE = (
    "With 3 or 4 numbers of steps a shape is named and no family; with 5, every family that is not rejected. "
    "R2 describes and decides nothing. An exponent needs 5 published sizes over 1.5 decades and "
    "a bounded set without 0."
)


def _shown(f: Findings) -> str:
    changes = f.tests[f.tests["family"] == next(iter(FAMILIES))]
    optimized = f.summary[f.summary["optimizer"] != "none"]
    if changes.empty:
        halves = ((f.summary["final_high"] - f.summary["final_low"]) / 2).median()
        unchanged = f" None of {len(optimized)} optimizations changed its program." if len(optimized) else ""
        return f"These records know a cell's score to about ±{100 * halves:.0f} points.{unchanged}"
    told = changes["verdict"].value_counts()
    better, worse = int(told.get("better", 0)), int(told.get("worse", 0))
    found = f"{better} better and {worse} worse" if better or worse else "none"
    same = int(optimized["unchanged"].sum())
    kept = f" ({same} more {'was' if same == 1 else 'were'} left unchanged by their optimizer)" if same else ""
    return (
        f"These records can show an optimized cell to differ from its baseline by about "
        f"{100 * changes['detectable'].median():.0f} points or more (80 % power, one comparison); among "
        f"{len(changes)} changed cells{kept} they found {found}."
    )


def _hypotheses(tests: pd.DataFrame) -> str:
    four = tests[tests["family"] == "H1-H4"]
    open_ones = four[four["verdict"] == "cannot tell"]
    said = [f"{row['question'].split(':')[0]}: {row['verdict']}" for _, row in four.iterrows()
            if row["verdict"] != "cannot tell"]  # fmt: skip
    if len(open_ones):
        names = ", ".join(question.split()[0] for question in open_ones["question"])
        reasons = dict.fromkeys(reason.split(":")[0] for reason in open_ones["reason"].fillna("") if reason)
        said.append(f"{names}: cannot tell ({'; '.join(reasons) or 'the interval holds both answers'})")
    return "; ".join(said) + "."


def _verdicts(tests: pd.DataFrame) -> pd.DataFrame:
    four = tests[tests["family"] == "H1-H4"]
    return _tests(four).assign(question=four["question"].to_numpy())[
        ["question", "verdict", "effect (points)", "95 % interval", "Holm p", "level", "n x runs", "to settle", "why"]
    ]


def _family(tests: pd.DataFrame, family: str) -> pd.DataFrame:
    part = tests[tests["family"] == family]
    return _tests(part)[
        ["comparison", "verdict", "effect (points)", "95 % interval", "Holm p", "level", "n x runs", "to settle"]
    ] if len(part) else pd.DataFrame()  # fmt: skip


def _tests(tests: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for _, row in tests.iterrows():
        rows.append(
            {
                "comparison": row["comparison"],
                "verdict": row["verdict"],
                "effect (points)": percent(row["effect"], sign=True),
                "95 % interval": interval_text(row["ci_low"], row["ci_high"], sign=True),
                "Holm p": "—" if pd.isna(row["p_holm"]) else f"{row['p_holm']:.3f}",
                "level": "—" if pd.isna(row["level"]) else row["level"],
                "n x runs": "—" if pd.isna(row["n"]) or pd.isna(row["runs"]) else f"{row['n']:.0f} x {row['runs']:.0f}",
                "to settle": "—" if pd.isna(row["to_settle"]) else row["to_settle"],
                "why": ". ".join(text for text in (row["reason"], row["note"]) if isinstance(text, str) and text),
            }
        )
    return pd.DataFrame(rows)


def _verdicts_note(tests: pd.DataFrame) -> str:
    four = tests[(tests["family"] == "H1-H4") & tests["detectable"].notna()]
    power = "; ".join(f"{r['question'].split()[0]} {100 * r['detectable']:.0f}" for _, r in four.iterrows())
    able = f"Effects that could have been shown with 80 % power, in points: {power}. " if power else ""
    return f"{able}Intervals are 95 % and marginal; the verdict follows Holm's p over the four (plan.txt)."


def _family_note(f: Findings, family: str) -> str:
    part = f.tests[f.tests["family"] == family]
    if part.empty:
        return ""
    middle = part.iloc[(part["detectable"] - part["detectable"].median()).abs().argmin()]
    size = middle["to_settle"]
    able = f"The middle comparison can show {100 * middle['detectable']:.0f} points or more (80 % power, before Holm)"
    return f"Exploratory. {able}; 5 points need about {size} a cell{_its_cost(f.summary, size)}."


def _its_cost(summary: pd.DataFrame, size: str) -> str:
    """What that many rows and runs would cost in one cell, by these records; nothing where prices are 0 or unknown."""
    if " x " not in size or not (summary["usd_per_example"] > 0).all():
        return ""
    rows, runs = (float(part.split()[0].replace(",", "")) for part in size.split(" x "))
    a_run = summary["usd_optimize"].mean() + 2 * rows * summary["usd_per_example"].mean()
    return f", ${runs * a_run:.2f} by these records"


def _scores_note(f: Findings) -> str:
    changed = f.summary[f.summary["adopt"] != ""]
    adopted = int((changed["adopt"] == "yes").sum())
    half = ((f.summary["final_high"] - f.summary["final_low"]) / 2).median()
    luck = f" {adopted} of {len(changed)} would be adopted; luck alone adopts {ADOPTED_BY_LUCK * len(changed):.1f}." \
        if len(changed) else ""  # fmt: skip
    return (
        f"Points on rows that no optimizer saw; half an interval is {100 * half:.0f} points (median). One run: the "
        f"level is this program; several: this optimizer. 'Adopt' is a decision aid, one-sided p at most 5 %: 'not "
        f"shown' is not 'useless'.{luck} The best of many cells looks better than it is."
    )


def _money(costs: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for _, row in costs.iterrows():
        rows.append(
            {
                "benchmark": row["benchmark"],
                "cell": f"{row['steps']} {row['pipeline']}",
                "series": row["line"],
                "gain over one call": percent(row["gain"], sign=True),
                "its interval": interval_text(row["gain_low"], row["gain_high"], sign=True),
                "tokens an answer": f"{row['tokens_per_example']:.0f}",
                "input (cached) + output (reasoning)": row["token_kinds"],
                "USD for 1,000 answers": _usd(1000 * row["usd_per_example"]),
                "points for 1,000 more tokens": _one(row["points_per_1000_tokens"]),
                "points for a USD more on 1,000 answers": _one(row["points_per_usd"]),
                "USD optimize": _usd(row["usd_optimize"]),
                "of it proposals": _usd(row["usd_proposals"]),
                "pays after requests": row["breakeven"],
                "best for the money": "yes" if row["best_for_the_money"] else "",
            }
        )
    return pd.DataFrame(rows)


def _money_note(f: Findings) -> str:
    worth = (
        f"${f.value:g} a right answer"
        if f.value is not None
        else "several values of a right answer (--value-per-correct)"
    )
    averaged = int(f.summary["usd_is_average"].sum())
    whose = "1 cell are" if averaged == 1 else f"{averaged} cells are"
    average = (
        f" The answers of {whose} priced at the average of all its tokens, as its records do not price each answer."
        if averaged
        else ""
    )
    return (
        f"Gains are over one unoptimized call on the same rows. 'Pays after requests' is for {worth}; it says 'never "
        f"shown' where the gain's interval does not cover the extra cost. Dollars are list cost: input, cached input "
        f"and output tokens each at their own price. Cached tokens are part of the input, reasoning tokens of the "
        f"output.{average}"
    )


def _mipro(f: Findings) -> pd.DataFrame:
    """The comparison of MIPRO implementations, where a hosted one is among the cells."""
    hosted = f.results.cells["optimizer"].isin(HOSTED).any()
    return mipro_table.side_by_side(f.results, f.entries) if hosted else pd.DataFrame()


def _corrections(f: Findings) -> pd.DataFrame:
    votes = f.summary[f.summary["pipeline"] == "vote"] if not f.summary.empty else f.summary
    rows = []
    for cell in f.turned:
        entry, what, turns, fields = cell.entry, cell.correction, cell.turns, cell.entry.fields
        same = votes[(votes["benchmark"] == fields["benchmark"]) & (votes["model"] == fields["model"])
                     & (votes["steps"] == entry.steps)]  # fmt: skip
        cells = f.results.cells.loc[entry.keys]
        rows.append(
            {
                "benchmark": fields["benchmark"],
                "model": fields["model"],
                "turns": entry.steps,
                "feedback": fields["feedback"] + (" (cheating)" if fields["feedback"] == "oracle" else ""),
                "score by turn": ", ".join(percent(v) for v in turns.mean(axis=(0, 2))),
                "gain": percent(what.gain.effect, sign=True),
                "its interval": _spread(what.gain),
                "wrong to right": percent(what.wrong_to_right),
                "right to wrong": percent(what.right_to_wrong),
                "beyond a redraw": _excess(what.excess_wrong_to_right),
                "wrong beyond a redraw": _excess(what.excess_right_to_wrong),
                "flips beyond a redraw": _excess(what.excess_flips),
                "vote": percent(float(same["final_score"].mean()) if len(same) else None),
                "verdict": cell.label,
                "n x runs": f"{turns.shape[0]} x {len(cells)}",
            }
        )
    return pd.DataFrame(rows)


def _excess(estimate: Estimate | None) -> str:
    if estimate is None:
        return "not run"
    return f"{percent(estimate.effect, sign=True)} {_spread(estimate)}"


def _spread(estimate: Estimate) -> str:
    """The interval; where every item changed alike there is none."""
    alike = estimate.low == estimate.high
    return "(all items alike)" if alike else interval_text(estimate.low, estimate.high, sign=True)


def _research(tests: pd.DataFrame) -> pd.DataFrame:
    part = tests[tests["family"].str.startswith("RQ")]
    return _tests(part).assign(question=part["question"].to_numpy())[
        ["question", "comparison", "verdict", "effect (points)", "95 % interval", "Holm p", "why"]
    ] if len(part) else pd.DataFrame()  # fmt: skip


def _optimism(summary: pd.DataFrame) -> pd.DataFrame:
    part = summary[(summary["optimizer"] != "none") & ~summary["unchanged"] & summary["optimism"].notna()]
    return pd.DataFrame(
        {
            "benchmark": part["benchmark"],
            "cell": part["steps"].astype(str) + " " + part["pipeline"],
            "series": part["line"],
            "on select": [
                percent(b - a, sign=True)
                for a, b in zip(part["val_baseline_score"], part["val_final_score"], strict=True)
            ],  # fmt: skip
            "on test": [percent(v, sign=True) for v in part["improvement"]],
            "gap": [percent(v, sign=True) for v in part["optimism"]],
            "its interval": [
                interval_text(low, high, sign=True)
                for low, high in zip(part["optimism_low"], part["optimism_high"], strict=True)
            ],
        }
    )


def _fits(fits: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "series": fits["benchmark"],
            "over": fits["x"],
            "family": fits["family"].fillna(""),
            "verdict": fits["verdict"],
            "parameters": fits["parameters"].fillna(""),
            "95 % set": [
                "—" if pd.isna(low) else f"[{low:.3g}, {high:.3g}]"
                for low, high in zip(fits["ci_low"], fits["ci_high"], strict=True)
            ],
            "R2": ["—" if pd.isna(v) else f"{v:.2f}" for v in fits["r2"]],
            "why": fits["reason"].fillna(""),
        }
    )


def _programs(results: Results) -> Iterator[dict[str, Any]]:
    """Programs whose instructions changed, each role's prompt with what was taken out and put in."""
    for key in results.cells[results.cells["status"] == "ok"].index:
        path = results.folders[key] / PROGRAM
        roles = read_json(path).get("instructions", {}) if path.exists() else {}
        changed = {role: _diff(text["before"], text["after"]) for role, text in roles.items()
                   if text["before"] != text["after"]}  # fmt: skip
        if changed:
            yield {"name": results.name(key), "roles": changed}


def _diff(before: str, after: str) -> list[tuple[str, str]]:
    """Words as (kept | removed | added, text)."""
    old, new = before.split(), after.split()
    pieces = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            pieces.append(("kept", " ".join(old[a:b])))
            continue
        if b > a:
            pieces.append(("removed", " ".join(old[a:b])))
        if d > c:
            pieces.append(("added", " ".join(new[c:d])))
    return pieces


def _examples(results: Results) -> Iterator[dict[str, Any]]:
    """Answers that optimization turned from wrong to right and from right to wrong, a few a changed cell."""
    cells = results.cells
    changed = cells[(cells["status"] == "ok") & ~cells["unchanged"].fillna(True).astype(bool)]
    for key in changed.index[:CELLS_WITH_EXAMPLES]:
        by_program: dict[str, dict[str, Any]] = {"baseline": {}, "final": {}}
        for line in results.lines(key):
            if line["program"] in by_program and line["score"] is not None:
                by_program[line["program"]][line["id"]] = line
        pairs = [(before, by_program["final"].get(i)) for i, before in by_program["baseline"].items()]
        pairs = [(before, after) for before, after in pairs if after is not None]
        turned = {
            "wrong to right": [p for p in pairs if p[0]["score"] < p[1]["score"]],
            "right to wrong": [p for p in pairs if p[0]["score"] > p[1]["score"]],
        }
        if any(turned.values()):
            shown = {name: [_example(*pair) for pair in some[:EXAMPLES_A_CELL]] for name, some in turned.items()}
            counts = ", ".join(f"{len(some)} {name}" for name, some in turned.items())
            yield {"name": results.name(key), "counts": counts, "turned": shown}


def _example(before: dict[str, Any], after: dict[str, Any]) -> dict[str, str]:
    return {
        "id": str(before["id"]),
        "gold": _short(before["gold"]),
        "before": _said(before),
        "after": _said(after),
    }


def _said(line: dict[str, Any]) -> str:
    notes = "; ".join(f"{role}: {_short(text)}" for role, text in (line.get("notes") or {}).items())
    return f"{_short(line['prediction'])} (score {line['score']:g})" + (f" — {notes}" if notes else "")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else text[:300] + "…"


def _environment(results: Results) -> str:
    first = next(iter(results.folders.values()))
    return json.dumps(read_json(first / RECORD).get("environment"), indent=2)


def _tex(text: str) -> str:
    for plain, safe in (("\\", "/"), ("&", r"\&"), ("%", r"\%"), ("$", r"\$"), ("#", r"\#"), ("_", r"\_"), ("—", "--")):
        text = text.replace(plain, safe)
    return text


def _usd(value: float) -> str:
    return "—" if value is None or np.isnan(value) else f"{value:.4f}"


def _one(value: float) -> str:
    return "—" if pd.isna(value) else f"{value:+.1f}"
