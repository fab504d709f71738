"""The sentences of the report: what the records can show, what they found, and what a reader must know first."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from scaling.analysis.families import FAMILIES
from scaling.analysis.findings import Findings
from scaling.analysis.hypotheses import HYPOTHESES
from scaling.analysis.results import Results, folder_name
from scaling.analysis.summary import FEWEST_CHECK_ROWS, recommended, too_few_check_rows
from scaling.analysis.text import interval_text, percent, plural
from scaling.types import EMBEDDED

UNDECIDED = ("cannot tell", "not compared", "on these rows: no difference shown")


def headline(f: Findings) -> str:
    """The first sentences: what these records can show, what they found, and what they say to H1 to H4."""
    if f.summary.empty:
        return "No cell has a score yet."
    return " ".join(part for part in (_found(f), _hypotheses(f.tests), _research(f.tests)) if part)


def recommendations(f: Findings) -> list[str]:
    """A sentence per benchmark: the cell chosen on rows that no optimizer saw and its test score, or why none."""
    chosen = [
        f"{row['benchmark']}: of {row['of']} cells, '{folder_name(row)}, {row['line']}'{_as_it_was(row)} "
        f"{_rule(row, f.per_dollar)} on check rows, which no optimizer saw. Its test score is "
        f"{percent(row['final_score'])} points, 95 % interval {interval_text(row['final_low'], row['final_high'])} "
        f"({row['n']} rows, {plural(row['runs'], 'run')}). This choice is no test: another cell may be as good."
        for _, row in recommended(f.summary, f.per_dollar).iterrows()
    ]
    return chosen + [
        f"{name}: no cell is recommended: {plural(rows, 'check row')}, and {FEWEST_CHECK_ROWS} are needed (--val-size)."
        for name, rows in too_few_check_rows(f.summary).items()
    ]


def _rule(row: pd.Series, per_dollar: bool) -> str:
    if per_dollar:
        return "is the cheapest cell within one standard error of the best"
    return f"is the cheapest of {row['tied']} with the best score" if row["tied"] > 1 else "has the best score"


def _as_it_was(row: pd.Series) -> str:
    return " (left unchanged by its optimizer)" if row["unchanged"] and row["optimizer"] != "none" else ""


def notes_of(results: Results, summary: pd.DataFrame) -> list[str]:
    """What a reader must know before any number."""
    cells = results.cells
    notes = [
        *_of_benchmarks(cells, "sample", "Sample data: {} are small sets written for this program. Scores on them say "
                        "nothing about the real tasks."),
        *_of_benchmarks(cells, "closed_book", "Closed-book: some or all cells of {} were asked without the tables that "
                        "hold the answers."),
        *_own_notes(cells), *_of_models(cells), *_of_programs(cells), *_of_rows(summary),
        *_of_what_is_missing(results),
    ]  # fmt: skip
    return notes


def _own_notes(cells: pd.DataFrame) -> list[str]:
    """What the benchmarks themselves want to be said."""
    noted = cells[cells["note"].notna()]
    return [f"{name}: {note}." for name, note in sorted(set(zip(noted["benchmark"], noted["note"], strict=True)))]


def _of_models(cells: pd.DataFrame) -> list[str]:
    notes = []
    if (cells["feedback"] == "oracle").any():
        notes.append(
            "Some cells use the feedback 'oracle', which tells the model which of its answers are right. That is "
            "cheating: their scores are not results."
        )
    if (cells["model"] == EMBEDDED).any():
        notes.append(
            f"{EMBEDDED} is a model of 135 million parameters. Its scores show how the program works, not what LLMs "
            f"can do."
        )
    return notes


def _of_programs(cells: pd.DataFrame) -> list[str]:
    """Records of before there were program digests, beside others."""
    known = cells[cells["status"] == "ok"]["program_known"]
    if known.all() or not known.any():
        return []
    return [
        f"{int((~known).sum())} of {plural(len(known), 'cell')} do not say what their program was: whether their "
        f"prompts and metrics are those of the others is not known."
    ]


def _of_rows(summary: pd.DataFrame) -> list[str]:
    if summary.empty:
        return []
    notes = []
    on_check = summary[summary["split"] == "check"]
    if len(on_check):
        names = ", ".join(sorted(on_check["benchmark"].unique()))
        notes.append(f"{names}: there are no test rows. Scores are on the check part of val, which no optimizer saw.")
    if (summary["runs"] == 1).all():
        notes.append(
            "Each cell has one run. Its numbers are about these programs on these rows, and not about an optimizer, a "
            "number of steps or a model: a second run may come out differently."
        )
    return notes


def _of_what_is_missing(results: Results) -> list[str]:
    notes = []
    if results.left_out:
        units = ", ".join(f"{count} x {unit}" for unit, count in Counter(u.unit for u in results.left_out).items())
        notes.append(
            f"Left out because it could not be used: {units}. The table 'Left out' names each file and reason."
        )
    without = int((results.cells["status"] != "ok").sum())
    if without:
        have = "has" if without == 1 else "have"
        notes.append(
            f"{without} of {plural(len(results.cells), 'cell')} {have} no score. They are missing below, not 0."
        )
    return notes


def _of_benchmarks(cells: pd.DataFrame, flag: str, sentence: str) -> list[str]:
    """The sentence with the names of the benchmarks that have a flagged cell; [] where none has."""
    flagged = cells[cells[flag].fillna(False).astype(bool)]
    return [sentence.format(", ".join(sorted(flagged["benchmark"].unique())))] if len(flagged) else []


def _found(f: Findings) -> str:
    changes = f.tests[(f.tests["family"] == next(iter(FAMILIES))) & f.tests["detectable"].notna()]
    optimized = f.summary[f.summary["optimizer"] != "none"]
    same = int(optimized["unchanged"].sum())
    if changes.empty:
        half = ((f.summary["final_high"] - f.summary["final_low"]) / 2).median()
        kept = f" {_unchanged(same)}" if same else ""
        return f"A cell's score is known to about ±{100 * half:.0f} points (half a 95 % interval, median).{kept}"
    told = changes["verdict"].value_counts()
    shown = [
        f"{told[word]} {'is' if told[word] == 1 else 'are'} called '{word}'"
        for word in told.index
        if word not in UNDECIDED
    ]
    return (
        f"These records can show that an optimized program differs from its baseline by about "
        f"{100 * changes['detectable'].median():.0f} points or more (80 % power). Of "
        f"{plural(len(changes), 'changed program')}, {', '.join(shown) or 'none is shown to differ'}."
        f"{' ' + _unchanged(same) if same else ''}"
    )


def _unchanged(number: int) -> str:
    """A sentence on programs that their optimizer gave back as they were."""
    return f"{plural(number, 'program')} {'was' if number == 1 else 'were'} left unchanged by the optimizer."


def _hypotheses(tests: pd.DataFrame) -> str:
    """A sentence a verdict; those of a family that are open share one, with their reasons."""
    sentences = []
    families = tests[tests["family"].str.startswith(HYPOTHESES)].groupby("family", sort=False)
    for family, four in families:
        whose = f"{str(family).removeprefix(HYPOTHESES).strip(' ()')}: " if len(families) > 1 else ""
        decided, undecided = four[four["verdict"] != "cannot tell"], four[four["verdict"] == "cannot tell"]
        sentences += [f"{whose}{_decided(row)}" for _, row in decided.iterrows()]
        names_by_reason: dict[str, list[str]] = {}
        for _, row in undecided.iterrows():
            reason = (row["reason"] or "").split(":")[0] or "the interval holds both answers"
            names_by_reason.setdefault(reason, []).append(row["question"].split()[0])
        sentences += [f"{whose}{', '.join(names)}: cannot tell ({why})." for why, names in names_by_reason.items()]
    return " ".join(sentences)


def _decided(row: pd.Series) -> str:
    """A verdict, which is about these benchmarks only; that of H1 with what equal calls do (plan.txt, 9)."""
    sentence = f"{row['question'].split(':')[0]}: {row['verdict']} on these benchmarks."
    return (
        f"{sentence[:-1]} ({row['note'].rstrip('.')})."
        if row["question"].startswith("H1") and row["note"]
        else sentence
    )


def _research(tests: pd.DataFrame) -> str:
    """The research questions that have an answer; RQ2 explores and has none."""
    asked = tests[tests["family"].isin(["RQ1, RQ3", "RQ4"])]
    decided = asked[asked["verdict"] != "cannot tell"]
    return " ".join(f"{row['question'].split(':')[0]}: {row['verdict']}." for _, row in decided.iterrows())
