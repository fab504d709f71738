"""Where the plan proposes more draws: the analysis' variances of earlier records, and the prices of this study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scaling.command.headroom import headroom_folder
from scaling.command.prepare import Sweep
from scaling.planning.optimizers import NONE
from scaling.records.store import record_paths
from scaling.run.estimate import estimate
from scaling.run.task import CellTask
from scaling.types import Cell, UsageError

if TYPE_CHECKING:
    from scaling.analysis.draws import Prices, Proposal, Size, Variances


MOST_RECORDS = 500  # that a plan reads; more would take long


def draw_notes(sweep: Sweep, results: Path) -> list[str]:
    """A note for each benchmark where another answer a row buys more than another row or run; [] without records.

    The variances are those of the study's own cells that are settled, else those of its pilot of headroom.
    """
    chains = [task for task in sweep.tasks if _can_draw(task.cell)]
    folders = (headroom_folder(results), results)  # the study's own come last, and count
    here = [folder for folder in folders if 0 < len(record_paths([folder])) <= MOST_RECORDS]
    if not chains or not here:
        return []
    from scaling.analysis.draws import proposal  # pandas and its friends start slowly

    found = {(v.benchmark, v.model): v for folder in here for v in _variances(folder)}
    notes = []
    for key, variances in sorted(found.items()):
        own = [task for task in chains if (task.cell.benchmark, task.cell.model) == key]
        if own and (proposed := proposal(variances, _size(own), _prices(own))) is not None:
            notes.append(_note(proposed))
    return notes


def _variances(folder: Path) -> list[Variances]:
    """Those of a folder's records; [] where the analysis cannot use them."""
    from scaling.analysis.draws import variances_of
    from scaling.analysis.loading import load

    try:
        return variances_of(load([folder]))
    except UsageError:
        return []


def _can_draw(cell: Cell) -> bool:
    """Whether more draws of the cell could help a hypothesis."""
    return cell.pipeline == "chain" and cell.optimizer != NONE.name and cell.temperature > 0 and not cell.pilot


def _size(tasks: Sequence[CellTask]) -> Size:
    from scaling.analysis.draws import Size

    runs = {task.cell.run for task in tasks}
    optimizers = {task.cell.optimizer for task in tasks}
    cell = tasks[0].cell
    return Size(cell.test_size, len(runs), cell.draws, len(optimizers))


def _prices(tasks: Sequence[CellTask]) -> Prices:
    """Calls of the cells of one benchmark, at the middle of their estimates."""
    from scaling.analysis.draws import Prices

    bench, size = tasks[0].bench, tasks[0].cell.test_size
    more_rows = bench.test is not None and len(bench.test) > size and tasks[0].splits.split == "test"
    answers = sum(task.cell.steps * (1 + task.cell.draws + task.buys_equal_calls) for task in tasks)
    whole = sum(sum(estimate(task).calls) / 2 for task in tasks)
    return Prices(
        draw=sum(task.cell.steps * size for task in tasks),
        run=whole / len({task.cell.run for task in tasks}),
        row=answers if more_rows else None,
    )


def _note(proposed: Proposal) -> str:
    """'heartdisease: 3 draws ...'."""
    v = proposed.variances
    low, high = (100 * end**0.5 for end in v.noise_interval)
    runs = f"a run sd of {100 * v.runs**0.5:.1f}" if v.runs is not None else "an assumed run sd of 2"
    return (
        f"draws: on {v.benchmark} another answer a row buys more than another row or run. With {proposed.draws} draws "
        f"(draws_by_benchmark = {{ {v.benchmark} = {proposed.draws} }}) half a 95 % interval of most minus fewest "
        f"steps is expected to be {100 * proposed.half_then:.1f} points in place of {100 * proposed.half_now:.1f}, for "
        f"{proposed.calls:,.0f} more calls. That is from {v.rows} rows, where answers to one row have an sd of "
        f"{100 * v.noise**0.5:.0f} points [{low:.0f}, {high:.0f}], and from {runs} points"
    )
