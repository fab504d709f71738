"""`--pilot-headroom`: how much a study could win and what it would cost, measured before anybody pays for it."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from scaling.command.options import LIBRARY, Caller, Options
from scaling.command.prepare import Sweep, prepare_sweep
from scaling.command.questions import planned_chances
from scaling.planning.headroom import headroom_of
from scaling.planning.plan import Benchmarks
from scaling.planning.study import Study
from scaling.records.record import Record
from scaling.records.store import HEADROOM, write_bytes
from scaling.run.estimate import Estimate, estimate, figures
from scaling.run.shared_answers import shared

RunSweep = Callable[[Study, Options, Caller], list[Record]]


def headroom_folder(results: Path) -> Path:
    """Where the pilot of headroom of a results folder lies: beside it."""
    whole = results.resolve()
    return results.with_name(f"{whole.name}-headroom") if results.name else whole.with_name(f"{whole.name}-headroom")


def run_headroom(study: Study, options: Options, run_sweep: RunSweep, benchmarks: Benchmarks) -> list[Record]:
    """Run a study's pilot of headroom in a folder of its own, and say what it found of the study.

    The whole study is prepared first, so that what is wrong with it is told before anything is spent.
    """
    whole = replace(study, headroom=False)
    sweep = prepare_sweep(whole, replace(options, dry_run=True), LIBRARY, benchmarks)
    folder = headroom_folder(options.output_dir)
    records = run_sweep(headroom_of(whole), replace(options, output_dir=folder), Caller(owns_process=True))
    lines = [_cost_line(whole, sweep)]
    if not options.dry_run:
        lines = _found(whole, sweep, options.output_dir, folder, records) + lines
        write_bytes(folder / HEADROOM, "".join(f"{line}\n" for line in lines).encode())
    print("\n".join(lines))
    return records


def _cost_line(study: Study, sweep: Sweep) -> str:
    if not sweep.waiting:
        return f"the study {study.name} is settled already"
    cells = "1 cell" if len(sweep.waiting) == 1 else f"{len(sweep.waiting)} cells"
    return f"the whole study {study.name}: {cells} to run, {', '.join(figures(_total(sweep)))}"


def _total(sweep: Sweep) -> Estimate:
    """What the cells that wait will use together."""
    total = functools.reduce(operator.add, map(estimate, sweep.waiting))
    twice = shared(sweep.waiting)
    return total if twice is None else total - twice


def _found(study: Study, sweep: Sweep, results: Path, folder: Path, records: Sequence[Record]) -> list[str]:
    """The pilot's table, and the chance that the study decides each question."""
    from scaling.analysis.headroom import headroom_table, headrooms_of  # pandas and its friends start slowly
    from scaling.analysis.loading import load
    from scaling.analysis.text import markdown_table

    if not any(record.status == "ok" for record in records):
        return ["the pilot of headroom has no score"]
    headrooms = headrooms_of(load([folder]), {record.cell_id for record in records})
    table = headroom_table(headrooms)
    lines = [f"headroom of the study {study.name}. {table.note}", "", markdown_table(table.columns, table.rows), ""]
    chances = planned_chances(study, sweep, results, headrooms)
    if chances:
        lines.append(
            f"chance that the study decides each question, with effects drawn from what these intervals leave open "
            f"({chances[0].samples} samples of its results, with 95 % intervals; wins of more than a few points are "
            f"taken for unlikely beforehand):"
        )
    return lines + [f"- {chance.question.sentence} {chance.text}" for chance in chances]
