"""A comparison in a terminal: 80 columns, no colour."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from scaling.analysis.report import Report
from scaling.analysis.text import Table, interval_text, percent, plain, plural
from scaling.compare.found import Found, dollars, name, p_text, score_of, short, unmatched
from scaling.compare.judging import Pair
from scaling.compare.matching import Matched, Program

WIDTH, GAP = 80, 2
SHOWN_PAIRS, SHOWN_ROWS, SHOWN_LINES = 30, 3, 40


def printed(found: Found, comparisons: Sequence[Matched], pairs: Sequence[Pair]) -> str:
    """The whole text."""
    lines = [*_wrapped(found.report.headline), ""]
    for matched in comparisons:
        lines += _of_dataset(matched, [pair for pair in pairs if pair.matched is matched and pair.compared])
    for sentence in found.report.refused:
        lines += _wrapped(f"not compared: {sentence}")
    return "\n".join(plain(line) for line in lines).rstrip()


def printed_report(report: Report) -> str:
    """A report without pairs: its sentences, and each table as lines that fit."""
    lines = [*_wrapped(report.headline), ""]
    for note in report.notes:
        lines += _wrapped(f"note: {note}", "  ")
    for table in report.tables:
        lines += ["", *_wrapped(f"{table.title}. {table.note}"), *_columns(table)]
    return "\n".join(plain(line) for line in lines).rstrip()


def _columns(table: Table) -> Iterator[str]:
    """The table with aligned columns; the widest give way until it fits the terminal."""
    rows = [table.columns, *table.rows[:SHOWN_LINES]]
    widths = [max(len(row[place]) for row in rows) for place in range(len(table.columns))]
    while sum(widths) + GAP * len(widths) > WIDTH:
        widths[widths.index(max(widths))] -= 1
    for row in rows:
        cells = [_cut(text, width).ljust(width) for text, width in zip(row, widths, strict=True)]
        yield (" " * GAP + (" " * GAP).join(cells)).rstrip()
    if len(table.rows) > SHOWN_LINES:
        yield f"  ... and {len(table.rows) - SHOWN_LINES} more lines (comparison.md, with --output-dir)"


def _of_dataset(matched: Matched, pairs: Sequence[Pair]) -> Iterator[str]:
    yield from _wrapped(f"{matched.comparable.dataset}, {matched.comparable.metric}")
    for note in matched.notes:
        yield from _wrapped(f"note: {note}", "  ")
    for program in matched.programs:
        yield from _scored(matched, program)
    yield ""
    for pair in pairs[:SHOWN_PAIRS]:
        yield from _told(pair)
    if len(pairs) > SHOWN_PAIRS:
        yield f"... and {len(pairs) - SHOWN_PAIRS} more pairs (comparison.csv, with --output-dir)"


def _scored(matched: Matched, program: Program) -> Iterator[str]:
    row = score_of(matched, program)
    interval = interval_text(row["ci_low"], row["ci_high"])
    size = f"{row['rows']} rows x {plural(row['runs'], 'run')}"
    lost = f", {row['without_score']} without a score" if row["without_score"] else ""
    cost = f", {dollars(program.usd)} an answer" if program.usd == program.usd else ""
    yield from _wrapped(f"{program.letter}  {percent(row['score']):>5} {interval}  {size}{lost}{cost}", "  ")
    yield from _wrapped(program.result.name, "     ")


def _told(pair: Pair) -> Iterator[str]:
    estimate = pair.estimate
    effect = f"{percent(estimate.effect, sign=True)} {interval_text(estimate.low, estimate.high, sign=True)}"
    yield f"  {name(pair)}  {effect}  Holm's p {p_text(pair.p_holm)}  {pair.verdict}"
    for text in (estimate.untestable, unmatched(pair)):
        yield from _wrapped(text, "         ") if text else ()
    if estimate.left_out and not estimate.untestable:
        yield from _wrapped(f"left out: {'; '.join(rows.sentence for rows in estimate.left_out)}", "         ")
    if pair.compared and not estimate.untestable:
        yield f"         {percent(pair.detectable)} points would have been seen with 80 % power"
    yield f"         rows: {pair.gained} higher, {pair.lost} lower in {pair.second.letter}"
    ids, inputs = pair.matched.ids, pair.matched.inputs
    for row in pair.differing[:SHOWN_ROWS]:
        scores = f"{percent(row.first)} to {percent(row.second)}"
        yield _cut(f"           {ids[row.key]}: {scores}  {short(inputs.get(row.key))}")
    if len(pair.differing) > SHOWN_ROWS:
        yield f"           ... and {len(pair.differing) - SHOWN_ROWS} more (comparison_rows.csv, with --output-dir)"
    yield ""


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(plain(text), WIDTH, initial_indent=indent, subsequent_indent=indent)


def _cut(text: str, width: int = WIDTH) -> str:
    line = plain(text).replace("\n", " ").rstrip()
    return line if len(line) <= width else line[: width - 1] + "…"
