"""summary_results.md and report.html from the frames: verdicts first, then tables and figures."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path

import jinja2
import pandas as pd

from scaling.store import PROGRAM, RECORD, read_json
from scaling.summary import against_estimate, missing, readable
from scaling.tables import Results, folder_name, interval_text, markdown, percent

TEMPLATE = Path(__file__).parent / "report.html"
TITLE = "Quality against calls, optimizers and models"


def notes_of(results: Results, summary: pd.DataFrame, refused: list[str]) -> list[str]:
    """What a reader must know before any number."""
    cells, notes = results.cells, []
    if cells["sample"].any():
        names = sorted(cells[cells["sample"].astype(bool)]["benchmark"].unique())
        notes.append(
            f"Sample data: {', '.join(names)} are small sets written for this program; no result about the tasks."
        )
    if cells["closed_book"].any():
        names = sorted(cells[cells["closed_book"]]["benchmark"].unique())
        notes.append(f"Closed-book: {', '.join(names)} also or only asked without the tables that hold the answers.")
    embedded = cells[cells["model"].str.startswith("local/")]["model"].unique()
    if len(embedded):
        notes.append(
            f"{', '.join(embedded)} is a model of 135 million parameters: it shows the way, not what LLMs can do."
        )
    if not summary.empty and (summary["split"] == "check").any():
        names = sorted(summary[summary["split"] == "check"]["benchmark"].unique())
        notes.append(f"{', '.join(names)}: no test rows, scored on check rows of val that no optimizer saw.")
    without = int((cells["status"] != "ok").sum())
    if without:
        notes.append(f"{without} of {len(cells)} cells have no score; they are missing below, not 0.")
    return notes + [f"Not compared: {text}." for text in refused]


def headline(summary: pd.DataFrame, tests: pd.DataFrame) -> str:
    """The first sentence: what these records can show, and what they did."""
    if summary.empty:
        return "No cell has a score yet."
    halves = (summary["final_high"] - summary["final_low"]).dropna() / 2
    told = summary[(summary["improvement_low"] > 0) | (summary["improvement_high"] < 0)]
    decided = tests[tests["verdict"] != "cannot tell"]
    verdicts = "; ".join(f"{r['question'].split(':')[0]}: {r['verdict']}" for _, r in decided.iterrows())
    verdicts = verdicts or "H1 to H4: cannot tell"
    width = f"a cell's score is known to ±{100 * halves.median():.0f} points" if len(halves) else "no interval is known"
    return (
        f"With {int(summary['n'].median())} test rows and {summary['runs'].max()} "
        f"{'run' if summary['runs'].max() == 1 else 'runs'} {width} (half a 95 % interval, median); "
        f"{len(told)} of {len(summary)} cells changed by more than their interval. {verdicts}."
    )


def write_markdown(path: Path, results: Results, summary: pd.DataFrame, tests: pd.DataFrame, notes: list[str]) -> None:
    """summary_results.md: the same numbers as the report, for reading in a terminal."""
    parts = [f"# {TITLE}", headline(summary, tests), *[f"> {note}" for note in notes]]
    parts += [
        "## Verdicts",
        "Intervals are 95 % and marginal; the verdict follows Holm's p (plan.txt).",
        markdown(_tests(tests)),
    ]
    parts += ["## Scores", _scores_note(), markdown(readable(summary))] if not summary.empty else []
    bad = missing(results)
    parts += ["## Cells without a score", markdown(bad.astype(str))] if len(bad) else []
    planned = against_estimate(results)
    parts += ["## Estimate against actual", markdown(planned)] if len(planned) else []
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def write_html(
    path: Path,
    results: Results,
    summary: pd.DataFrame,
    tests: pd.DataFrame,
    notes: list[str],
    pictures: dict[Path, str],
) -> None:
    """report.html: one file that needs no network; pictures are embedded."""
    bad = missing(results)
    environment = jinja2.Environment(autoescape=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    figures = [{"data": base64.b64encode(p.read_bytes()).decode(), "alt": alt} for p, alt in pictures.items()]
    text = template.render(
        title=TITLE,
        headline=headline(summary, tests),
        notes=notes,
        verdicts=_html(_tests(tests)),
        scores=_html(readable(summary)) if not summary.empty else "",
        scores_note=_scores_note(),
        missing=_html(bad) if len(bad) else None,
        figures=figures,
        programs=_programs(results),
        environment=_environment(results),
    )
    path.write_text(text, encoding="utf-8")


def _tests(tests: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for _, row in tests.iterrows():
        rows.append(
            {
                "question": row["question"],
                "verdict": row["verdict"],
                "effect (points)": percent(row["effect"], sign=True),
                "95 % interval": interval_text(row["ci_low"], row["ci_high"], sign=True),
                "Holm p": "—" if pd.isna(row["p_holm"]) else f"{row['p_holm']:.3f}",
                "level": "—" if pd.isna(row["level"]) else row["level"],
                "why": "" if pd.isna(row["reason"]) else row["reason"],
            }
        )
    return pd.DataFrame(rows)


def _scores_note() -> str:
    return (
        "Scores and changes in points on test rows that no optimizer saw. One run: the level is this program, "
        "several runs: this optimizer."
    )


def _html(frame: pd.DataFrame) -> jinja2.utils.markupsafe.Markup:
    return jinja2.utils.markupsafe.Markup(
        f'<div class="scroll">{frame.to_html(index=False, border=0, na_rep="—")}</div>'
    )


def _programs(results: Results) -> list[dict]:
    found = []
    for key, row in results.cells[results.cells["status"] == "ok"].iterrows():
        path = results.folders[key] / PROGRAM
        roles = read_json(path).get("instructions", {}) if path.exists() else {}
        changed = {role: text for role, text in roles.items() if text["before"] != text["after"]}
        if changed:
            name = f"{row['benchmark']} {folder_name(row)} {row['optimizer']} {row['model']} run{row['run']}"
            found.append({"name": html.unescape(name), "roles": changed})
    return found


def _environment(results: Results) -> str:
    first = next(iter(results.folders.values()))
    return json.dumps(read_json(first / RECORD).get("environment"), indent=2)
