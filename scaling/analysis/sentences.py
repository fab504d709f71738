"""The sentences of the report: what the records can show, what they found, and what a reader must know first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import pandas as pd

from scaling.analysis.answers import Answer
from scaling.analysis.families import FAMILIES
from scaling.analysis.findings import Findings
from scaling.analysis.hypotheses import HYPOTHESES
from scaling.analysis.results import Results, folder_name
from scaling.analysis.sequential import NOT_NEEDED, notes_of_studies
from scaling.analysis.summary import FEWEST_CHECK_ROWS, recommended, too_few_check_rows
from scaling.analysis.test_rows import TestRow
from scaling.analysis.text import interval_text, percent, plural
from scaling.analysis.verdicts import CANNOT_TELL
from scaling.planning.questions import UNIT_SIZE, Question
from scaling.sequential import INTERIM
from scaling.types import EMBEDDED

NAMED_CONTRASTS = 4  # of a question, in its line
UNDECIDED = ("cannot tell", "not compared", "on these rows: no difference shown")


def headline(f: Findings) -> str:
    """The first sentences: what these records can show, and what they found."""
    found = "No cell has a score yet." if f.summary.empty else _found(f)
    if f.summary.empty and not f.transfers.empty:
        found = "All scores are of transferred programs: the models' own optima were not run, or are in other folders."
    return f"{INTERIM.capitalize()}. {found}" if f.results.is_interim else found


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
        *notes_of_studies(results.sequential),
        *_of_benchmarks(cells, "sample", "Sample data: {} are small sets written for this program. Scores on them say "
                        "nothing about the real tasks."),
        *_of_benchmarks(cells, "pilot", "Pilot: some or all cells of {} are trials with one run and few rows. They "
                        "show that the study works, and their scores are not results."),
        *_of_benchmarks(cells, "headroom", "Pilot of headroom: some or all cells of {} are without an optimizer, "
                        "on a few rows of train and check in place of test rows."),
        *_of_benchmarks(cells, "closed_book", "Closed-book: some or all cells of {} were asked without the tables that "
                        "hold the answers."),
        *_of_benchmarks(cells, "stop_when_flat", "Stopped when flat: some or all optimizers of {} could end before "
                        "their budget was used, once their best score had not improved for a while. Such cells are "
                        "compared with each other only."),
        *_own_notes(cells), *_of_models(cells), *_of_programs(cells), *_of_rows(summary),
        *_of_what_is_missing(results),
    ]  # fmt: skip
    return notes


def marks_of(results: Results) -> str:
    """In a few words what some or all cells are beside results: 'interim, decides nothing; pilot'. For captions."""
    words = {
        "pilot": "pilot", "sample": "sample data", "closed_book": "closed-book", "stop_when_flat": "stopped when flat",
    }  # fmt: skip
    marks = [word for flag, word in words.items() if _is_set(results.cells[flag]).any()]
    return "; ".join([INTERIM, *marks] if results.is_interim else marks)


def _is_set(flags: pd.Series) -> pd.Series:
    """Whether each is known and neither false nor 0."""
    return flags.notna() & flags.astype(bool)


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
    without = int((~results.cells["status"].isin(["ok", NOT_NEEDED])).sum())
    if without:
        have = "has" if without == 1 else "have"
        notes.append(
            f"{without} of {plural(len(results.cells), 'cell')} {have} no score. They are missing below, not 0."
        )
    return notes


def _of_benchmarks(cells: pd.DataFrame, flag: str, sentence: str) -> list[str]:
    """The sentence with the names of the benchmarks that have a flagged cell; [] where none has."""
    flagged = cells[_is_set(cells[flag])]
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


def answer_lines(answers: Sequence[Answer]) -> list[str]:
    """A line a question: its verdicts with effects and intervals, or why there is none."""
    return [f"{answer.question.sentence} {_said(answer)}" for answer in answers]


def _said(answer: Answer) -> str:
    if not answer.answerable:
        return f"Cannot tell: {'; '.join(answer.missing)}."
    judged = [row for row in answer.rows if row.answerable]
    if len(answer.rows) == 1:
        return f"{_verdict(judged[0], answer.question)}."
    decided = [row for row in judged if row.verdict not in UNDECIDED]
    named = [f"{_whose(row)}: {_verdict(row, answer.question)}" for row in (decided or judged)[:NAMED_CONTRASTS]]
    more = len(decided or judged) - len(named)
    said = "; ".join(named) + (f"; and {more} more" if more else "")
    parts = [f"{len(decided)} of {len(answer.rows)} contrasts are decided. {said}."]
    if answer.missing:
        parts.append(f"Not judged ({len(answer.rows) - len(judged)}): {'; '.join(answer.missing)}.")
    return " ".join(parts)


def _whose(row: TestRow) -> str:
    """The contrast, of a family of hypotheses the model that it is about."""
    return row.family.removeprefix(HYPOTHESES).strip(" ()") if row.family.startswith(HYPOTHESES) else row.comparison


def _verdict(row: TestRow, question: Question) -> str:
    """'Supported on these benchmarks, +5.1 points, 95 % interval [+2.3, +7.9]', and what a reader must add."""
    where = " on these benchmarks" if row.family.startswith(HYPOTHESES) and row.verdict != CANNOT_TELL else ""
    size = UNIT_SIZE[question.unit]
    form = f"+.{1 if size > 1 else 2}f"
    effect = "" if row.effect is None else f", {size * row.effect:{form}} {question.unit}"
    if row.ci_low is not None and row.ci_high is not None and not math.isnan(row.ci_low):
        effect += f", 95 % interval [{size * row.ci_low:{form}}, {size * row.ci_high:{form}}]"
    why = row.reason or ("the interval holds both answers" if row.verdict == CANNOT_TELL else "")
    note = row.note.rstrip(". ") if question.name == "H1" else ""  # what equal calls do (plan.txt, 9)
    added = "; ".join(text for text in (why, note) if text)
    return f"{row.verdict}{where}{effect}" + (f" ({added})" if added else "")
