"""A cell's program in the formats of others, and the check that it still scores what it scored."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scaling.command.local_models import at_address, serving
from scaling.data import load_benchmark, make_splits
from scaling.export.files import check_free, write_new
from scaling.export.texts import OPEN_LICENCES, Texts, rights_of
from scaling.llm.cache import Cache
from scaling.llm.gateway import Gateway
from scaling.llm.meter import Meter
from scaling.llm.weights import fetched, located
from scaling.models import Model, find_model, load_registry, with_effort
from scaling.portable.formats import Format
from scaling.portable.made import Source, load_source, portable
from scaling.portable.rescored import Comparison, compared, rescore
from scaling.records.record import PredictionLine, Record
from scaling.records.store import AGGREGATE, CACHE, LEDGER, CellFiles, read_objects
from scaling.run.program_digest import program_digest
from scaling.types import Benchmark, CellStopped, Splits, UsageError

Entries = Mapping[str, dict[str, Any]]  # BENCHMARK_CONFIG


@dataclass(frozen=True)
class ModelOptions:
    """Where the cell's rows and model are now. data, api_base: None for those of the cell. max_cost: USD."""

    data: str | None = None
    api_base: str | None = None
    models_file: Path | None = None
    models_dir: Path | None = None
    max_cost: float | None = None


@dataclass(frozen=True)
class Found:
    """A settled cell with everything that its program needs."""

    record: Record
    files: CellFiles
    splits: Splits
    source: Source


def find_cell(folder: Path, entries: Entries, options: ModelOptions) -> Found:
    """The cell in a folder. Raises UsageError where its program cannot be had exactly as it ran."""
    files = CellFiles(folder)
    record = files.read_record()
    if record is None or record.status != "ok" or not files.program.exists():
        raise UsageError(f"{folder} holds no cell that is ok. Give the folder of one: the one with its program.json.")
    if record.cell.benchmark not in entries:
        raise UsageError(
            f"the benchmark '{record.cell.benchmark}' is not known here. Type --data {record.cell.benchmark}.csv where "
            f"that is its file, or add it to BENCHMARK_CONFIG."
        )
    bench, splits = _rows(record, entries[record.cell.benchmark], options.data)
    model = _model(record, options)
    source = load_source(record.cell, bench, model, files.program)
    now = program_digest(record.cell, bench, model, model)
    if record.program is not None and record.program.program != now.program:
        raise UsageError(f"{folder}: the prompts of its program have changed since it ran. Run the cell again.")
    return Found(record, files, splits, source)


def write_program(found: Found, form: Format, entries: Entries, out: Path) -> list[Path]:
    """Write the files of a format; returns their paths. Raises UsageError."""
    files: dict[str, str] = pkgutil.resolve_name(form.function)(found.source, _about(found, entries))
    for file, text in files.items():
        check_free(out / file, text.encode())
    for file, text in files.items():
        write_new(out / file, text.encode())
    return [out / file for file in files]


def check_program(found: Found, options: ModelOptions) -> tuple[Comparison, Meter]:
    """Score the exported form on the rows of the cell, with its model, cap and cache. Raises UsageError."""
    if options.max_cost is not None and not found.source.model.has_price:
        raise UsageError(
            f"--max-cost: the price of '{found.source.model.id}' is not known, so the check cannot be capped. "
            f"Add its prices with --models-file, or leave --max-cost out."
        )
    before, _ = read_objects(found.files.predictions, PredictionLine)
    program, home = portable(found.source), _home(found.files.folder)
    meter = Meter(found.record.cell_id)
    with ExitStack() as stack:
        cache = Cache(home / CACHE, 0.0, home / LEDGER)
        stack.callback(cache.close)
        gateway = Gateway(cache, options.max_cost)
        model = fetched(found.source.model)
        model = at_address(model, stack.enter_context(serving([model])))
        try:
            after = rescore(program, replace(found.source, model=model), found.splits.test, gateway, meter)
        except CellStopped as stopped:
            raise UsageError(f"the check stopped: {stopped}") from None
    try:
        return compared([line for line in before if line.program == "final"], after), meter
    except ValueError as error:
        raise UsageError(f"the check has nothing to compare: {error}") from None


def check_lines(found: Found, comparison: Comparison, meter: Meter) -> list[str]:
    """What the check found, in words."""
    total = meter.total()
    difference = 100 * (comparison.after - comparison.before)
    lost = f", {comparison.lost} rows without a score left out" if comparison.lost else ""
    billed = "unknown dollars" if total.billed_cost_usd is None else f"${total.billed_cost_usd:.4f}"
    return [
        f"{found.record.cell.label} on {comparison.rows} {found.splits.split} rows{lost}:",
        f"  in DSPy      {_percent(comparison.before, comparison.before_ci95)}",
        f"  exported     {_percent(comparison.after, comparison.after_ci95)}",
        f"  difference  {difference:+5.1f} {_interval(comparison.difference_ci95)} (95 %, the same rows), "
        f"{comparison.changed} rows changed",
        f"{total.calls} calls, {total.cache_hits} of them from the cache, {billed}",
    ]


def _rows(record: Record, entry: dict[str, Any], data: str | None) -> tuple[Benchmark, Splits]:
    """The benchmark and the rows of the cell. Raises UsageError where those here are others."""
    cell, source = record.cell, data or record.cell.data
    bench = load_benchmark(cell.benchmark, entry, source, cell.labels, cell.closed_book)
    splits = make_splits(bench, cell.train_size, cell.val_size, cell.select_size, cell.test_size, cell.run, cell.seed)
    if record.data is None or splits.sha256 != record.data.sha256:
        raise UsageError(f"the rows of '{cell.benchmark}' in {source} are not those of the cell. Give --data DIR.")
    return bench, splits


def _model(record: Record, options: ModelOptions) -> Model:
    """The cell's model as the cell called it."""
    registry = load_registry(options.models_file)
    model = located(find_model(record.cell.model, registry, options.api_base), options.models_dir)
    return replace(with_effort(model, record.cell.reasoning_effort), max_output_tokens=record.cell.max_output_tokens)


def _about(found: Found, entries: Entries) -> list[str]:
    """What a reader of the exported program must know of it."""
    record, cell = found.record, found.record.cell
    lines = [f"The program of {cell.label} (cell {record.cell_id})."]
    if record.final_score is not None:
        where = f"{record.n} {record.split} rows"
        lines.append(f"It scored {_percent(record.final_score, record.final_ci95)} on {where}.")
    if record.sample or cell.pilot:
        lines.append("These are sample rows or a pilot: the score is not a result.")
    if any(predictor.demos for predictor in found.source.core.predictors()):
        licence = rights_of(record, entries[cell.benchmark], Texts()).licence
        terms = licence if licence in OPEN_LICENCES else f"{licence or 'not known'}: do not publish them"
        lines.append(f"Its worked examples are rows of {cell.benchmark} (licence {terms}).")
    return lines


def _home(folder: Path) -> Path:
    """The results folder that a cell's folder is in: the one with the cache, the bills or the aggregate."""
    known = (CACHE, LEDGER, AGGREGATE)
    above = (folder, *folder.resolve().parents)
    return next((home for home in above if any((home / name).exists() for name in known)), folder)


def _percent(score: float, interval: tuple[float, float] | None) -> str:
    return f"{100 * score:5.1f} {_interval(interval)}"


def _interval(interval: tuple[float, float] | None) -> str:
    return "[no interval]" if interval is None else f"[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
