"""What `compare` says, in the form in which every output shows it: sentences, tables, and rows for other programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scaling.analysis.report import Report
from scaling.analysis.stats import THIS_PROGRAM, run_variances, score_interval
from scaling.analysis.test_rows import left_out_note
from scaling.analysis.text import UNKNOWN, Table, interval_text, percent, plural, table_of
from scaling.analysis.verdicts import HIGHER_HERE, LOWER_HERE
from scaling.compare.judging import Pair
from scaling.compare.matching import Matched, Program
from scaling.intervals import Interval

TITLE = "Comparison"
SHOWN_ROWS = 20  # of a pair, in a table; the CSV file has all
LONGEST_INPUT = 90
HOW = (
    "One run of 0/1 scores on independent rows: mid-p McNemar's test and Newcombe's interval. Else t over rows, "
    "clusters and runs. Holm's correction is over all pairs. Intervals are 95 %, each for its number alone."
)


@dataclass(frozen=True)
class Found:
    """A report; columns and rows of two CSV files, which comparison.json holds as well; pictures by path."""

    report: Report
    pairs: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    scores: list[dict[str, Any]]
    pictures: dict[Path, str]


def found_of(comparisons: Sequence[Matched], pairs: Sequence[Pair], alone: Sequence[str]) -> Found:
    """Everything that was found."""
    scores = [score_of(matched, program) for matched in comparisons for program in matched.programs]
    notes = list(dict.fromkeys(note for matched in comparisons for note in _notes(matched, len(comparisons) > 1)))
    refused = [f"{_both(pair)}: {why_not(pair)}" for pair in pairs if not pair.compared]
    tables = [_pairs_table(pairs), _scores_table(scores), _rows_table(pairs)]
    report = Report(
        headline(pairs), [], notes, [], [table for table in tables if table.rows], [*refused, *alone], "", TITLE
    )
    rows = [row for pair in pairs for row in _rows(pair)]
    return Found(report, [_pair(pair) for pair in pairs], rows, scores, {})


def headline(pairs: Sequence[Pair]) -> str:
    """Which program is better, in a sentence; of several pairs, how many differ and which."""
    if len(pairs) == 1:
        return sentence(pairs[0])
    shown = [pair for pair in pairs if pair.verdict in DECIDED]
    start = f"{len(shown)} of {plural(len(pairs), 'pair')} {'is' if len(shown) == 1 else 'are'} shown to differ."
    return " ".join([start, *(sentence(pair) for pair in shown[:3])])


def sentence(pair: Pair) -> str:
    """The verdict on one pair with its effect, interval, p and power."""
    first, second = pair.first.result.name, pair.second.result.name
    estimate = pair.estimate
    if not pair.compared:
        return f"{first} and {second} are not compared: {why_not(pair)}."
    numbers = f"{percent(estimate.effect, sign=True)} points, 95 % interval " + interval_text(
        estimate.low, estimate.high, sign=True
    )
    if pair.verdict in DECIDED:
        here = "On these rows, " if estimate.level == THIS_PROGRAM else ""
        better, worse = (second, first) if estimate.effect > 0 else (first, second)
        word = "scores higher than" if here else "is better than"
        signed = f"({second} - {first}: {numbers}, Holm's p {p_text(pair.p_holm)})"
        return f"{here}{better} {word} {worse} {signed}."
    if estimate.untestable:
        return f"Cannot tell whether {first} or {second} is better ({numbers}): {estimate.untestable}."
    return (
        f"No difference is shown between {first} and {second} ({second} - {first}: {numbers}, Holm's p "
        f"{p_text(pair.p_holm)}). A difference of {percent(pair.detectable)} points would have been seen with 80 % "
        f"power."
    )


DECIDED = (HIGHER_HERE, LOWER_HERE, "better", "worse")


def p_text(p: float) -> str:
    """A p value with three digits, or that it is smaller."""
    return UNKNOWN if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def name(pair: Pair) -> str:
    """'B - A', by the letters of the table of scores."""
    return f"{pair.second.letter} - {pair.first.letter}"


def why_not(pair: Pair) -> str:
    """Why a pair is not compared."""
    if not pair.first.asked & pair.second.asked:
        return "no row of one is in the other"
    return pair.estimate.untestable.removeprefix("not compared: ")


def _both(pair: Pair) -> str:
    return f"{pair.matched.comparable.dataset}: {pair.first.result.name} and {pair.second.result.name}"


def dollars(usd: float) -> str:
    """The mean cost of an answer."""
    return UNKNOWN if math.isnan(usd) else f"${usd:.3g}"


def _notes(matched: Matched, several: bool) -> list[str]:
    return [f"{matched.comparable.dataset}: {note}" if several else note for note in matched.notes]


def score_of(matched: Matched, program: Program) -> dict[str, Any]:
    """One program as a row for other programs; null where nothing is known."""
    arm = program.arm
    low, high = _interval(matched, program) or (None, None)
    return {
        "program": program.letter, "name": program.result.name, "source": program.result.source,
        "format": program.result.format, "dataset": matched.comparable.dataset, "metric": matched.comparable.metric,
        "version": program.result.version, "score": arm.mean if len(arm.items) else None, "ci_low": low,
        "ci_high": high, "rows": len(arm.items), "without_score": len(arm.unscored), "runs": arm.runs,
        "usd_per_answer": None if math.isnan(program.usd) else program.usd,
    }  # fmt: skip


def _interval(matched: Matched, program: Program) -> Interval | None:
    if not len(program.arm.items):
        return None
    return score_interval(program.arm, run_variances([other.arm for other in matched.programs]))


def _pair(pair: Pair) -> dict[str, Any]:
    """One pair as a row for other programs; scores and effects are fractions."""
    estimate, matched = pair.estimate, pair.matched
    return {
        "dataset": matched.comparable.dataset, "metric": matched.comparable.metric, "first": pair.first.result.name,
        "second": pair.second.result.name, "effect": _known(estimate.effect), "ci_low": _known(estimate.low),
        "ci_high": _known(estimate.high), "p": _known(estimate.p) if pair.compared else None,
        "p_holm": _known(pair.p_holm), "verdict": pair.verdict, "level": estimate.level,
        "detectable": _known(pair.detectable), "rows": estimate.n, "runs": estimate.runs, "clusters": matched.grouped,
        "higher_in_second": pair.gained, "lower_in_second": pair.lost, "only_in_first": pair.only_first,
        "only_in_second": pair.only_second, "without_score": sum(len(rows.rows) for rows in estimate.left_out),
        "usd_first": _known(pair.first.usd), "usd_second": _known(pair.second.usd), "reason": estimate.untestable,
        "notes": " ".join(matched.notes),
    }  # fmt: skip


def _rows(pair: Pair) -> list[dict[str, Any]]:
    matched = pair.matched
    names = {"dataset": matched.comparable.dataset, "first": pair.first.result.name, "second": pair.second.result.name}
    return [
        names | {"id": matched.ids[row.key], "input": matched.inputs.get(row.key)}
        | {"first_score": row.first, "second_score": row.second}
        for row in pair.differing
    ]  # fmt: skip


def _known(number: float) -> float | None:
    return None if math.isnan(number) else number


def _pairs_table(pairs: Sequence[Pair]) -> Table:
    several = len({pair.matched.comparable.dataset for pair in pairs}) > 1
    return table_of("Differences", HOW, [_told(pair, several) for pair in pairs])


def _told(pair: Pair, several: bool) -> dict[str, str]:
    """One pair as people read it."""
    estimate = pair.estimate
    dataset = {"dataset": pair.matched.comparable.dataset} if several else {}
    why = "; ".join(text for text in (estimate.untestable, left_out_note(estimate), unmatched(pair)) if text)
    return dataset | {
        "pair": name(pair),
        "verdict": pair.verdict,
        "effect (points)": percent(estimate.effect, sign=True),
        "95 % interval": interval_text(estimate.low, estimate.high, sign=True),
        "Holm p": p_text(pair.p_holm),
        "seen with 80 % power": percent(pair.detectable),
        "rows x runs": f"{estimate.n} x {estimate.runs}",
        "rows higher / lower": f"{pair.gained} / {pair.lost}",
        "cost": f"{dollars(pair.second.usd)} - {dollars(pair.first.usd)}",
        "why": why or UNKNOWN,
    }


def unmatched(pair: Pair) -> str:
    """A sentence on rows that only one of the two was asked; "" where there are none."""
    counts = ((pair.first.letter, pair.only_first), (pair.second.letter, pair.only_second))
    told = [f"{plural(count, 'row')} only in {letter}" for letter, count in counts if count]
    return f"not matched: {', '.join(told)}" if told else ""


def _scores_table(scores: Sequence[dict[str, Any]]) -> Table:
    rows = [
        {
            "program": row["program"],
            "name": row["name"],
            "dataset": row["dataset"],
            "metric": row["metric"],
            "score": percent(row["score"]),
            "95 % interval": interval_text(row["ci_low"], row["ci_high"]),
            "rows x runs": f"{row['rows']} x {row['runs']}",
            "no score": str(row["without_score"]),
            "an answer costs": dollars(math.nan if row["usd_per_answer"] is None else row["usd_per_answer"]),
            "from": f"{row['source']} ({row['format']})",
        }
        for row in scores
    ]
    return table_of("Scores", "On all scored rows of each, also those that others lack.", rows)


def _rows_table(pairs: Sequence[Pair]) -> Table:
    total = sum(len(pair.differing) for pair in pairs)
    shown = [
        {
            "pair": name(pair),
            "row": row["id"],
            pair_column(0): percent(row["first_score"]),
            pair_column(1): percent(row["second_score"]),
            "input": short(row["input"]),
        }
        for pair in pairs
        for row in _rows(pair)[:SHOWN_ROWS]
    ]
    note = f"{len(shown)} of {plural(total, 'row')}; comparison_rows.csv has all."
    return table_of("Rows that differ", note, shown)


def pair_column(number: int) -> str:
    """The heading of a score of the first or second program of a pair."""
    return ("first", "second")[number]


def short(text: str | None) -> str:
    """The beginning of an input on one line."""
    line = " ".join((text or "").split())
    return line if len(line) <= LONGEST_INPUT else line[: LONGEST_INPUT - 1] + "…"


def plain_of(found: Found) -> dict[str, Any]:
    """What comparison.json holds."""
    report = asdict(found.report)
    kept = {name: report[name] for name in ("title", "headline", "notes", "refused")}
    return kept | {"programs": found.scores, "pairs": found.pairs, "rows": found.rows}
