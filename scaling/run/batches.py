"""The calls that score a cell's programs, asked in batches: round after round until the cache has every answer.

A program is run on each row to see what it asks. A row stops at its first call without an answer; that call goes into
the next batch. Then the programs are scored as ever, and find what they ask in the cache.
"""

from __future__ import annotations

import contextvars
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import dspy
from dspy.utils import exceptions as lm_errors

from scaling.batch_offers import at_batch_price, batch_offer
from scaling.llm.batch_calls import AskedLive, AwaitsBatch
from scaling.llm.fast_adapter import make_fast_adapter
from scaling.llm.lm import MeteredLM, variant
from scaling.llm.meter import Meter
from scaling.pipelines import PIPELINES
from scaling.planning.budgets import MAX_TOOL_TURNS
from scaling.run.pipelines import make_program
from scaling.run.scoring import as_example
from scaling.run.task import Batches, CellTask
from scaling.types import Benchmark, Cell, Row, digest

THREADS = 4  # that run programs without waiting for a model


@dataclass(frozen=True)
class Piece:
    """A part of a program whose calls wait for one another, on one row. draw: which sample it draws; row_draw: which
    answer of the whole program it is.
    """

    program: dspy.Module
    draw: int
    row_draw: int
    example: dspy.Example


def rounds_of(cell: Cell, bench: Benchmark) -> int:
    """How many of a cell's calls wait for one another on a row at most: each takes a round."""
    steps = 1 if PIPELINES[cell.pipeline].draws else cell.steps
    return steps * (MAX_TOOL_TURNS + 1) if bench.tools else steps


def answered_in_batches(
    task: CellTask, programs: Mapping[str, dspy.Module], lm: MeteredLM, queue: Batches
) -> MeteredLM:
    """The LM that scores the programs, once what they ask is answered; `lm` for a model without a batch API.

    programs: as test is opened for them. Raises CellStopped.
    """
    if batch_offer(task.model) is None:
        return lm
    waiting = _pieces(task, programs)
    while waiting:
        collector = queue.collector(task.model)
        meter = Meter(task.cell.cell_id, rank=lm.meter.rank)  # these runs of the programs are none of the cell's
        asking = lm.copy(phase="evaluate", spec=at_batch_price(task.model), gateway=collector, meter=meter)
        with dspy.context(lm=asking, adapter=make_fast_adapter(task.model)), ThreadPoolExecutor(THREADS) as pool:
            futures = [pool.submit(contextvars.copy_context().run, _waits, piece) for piece in waiting]
            waiting = [piece for piece, future in zip(waiting, futures, strict=True) if future.result()]
        if waiting:
            queue.answer(list(collector.calls.values()))
    scoring: MeteredLM = lm.copy(gateway=queue.scoring_gateway())
    return scoring


def _pieces(task: CellTask, programs: Mapping[str, dspy.Module]) -> list[Piece]:
    """Each different program on the test rows, and the final one on the check rows."""
    different = {digest(core.dump_state()): core for core in programs.values()}
    final = digest(programs["final"].dump_state())
    pieces = []
    for state, core in different.items():
        row_draws = task.cell.draws if state == final else 1
        pieces += [piece for row_draw in range(row_draws) for piece in _of(task, core, task.splits.test, row_draw)]
    if task.splits.split != "check":
        pieces += _of(task, programs["final"], task.splits.check, 0)
    return pieces


def _of(task: CellTask, core: dspy.Module, rows: list[Row], row_draw: int) -> list[Piece]:
    """Draws do not wait for one another, so that each is a piece of its own."""
    cell, draws = task.cell, 1
    if PIPELINES[cell.pipeline].draws:
        program, draws = core, cell.steps
    else:
        program = make_program(cell.pipeline, core, cell.steps)
    examples = [as_example(row, task.bench) for row in rows]
    return [Piece(program, draw, row_draw, example) for example in examples for draw in range(draws)]


def _waits(piece: Piece) -> bool:
    """Whether a piece waits for an answer; else it has all of them, or is left to the live calls."""
    try:
        with dspy.context(**variant(draw=piece.draw, row_draw=piece.row_draw)):
            piece.program(**piece.example.inputs())
    except AwaitsBatch:
        return True
    except (AskedLive, lm_errors.LMError):
        return False
    return False
