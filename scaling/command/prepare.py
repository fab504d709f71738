"""From a study to the tasks of its cells, with everything checked that a user can get wrong. No call is made here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from scaling.command.backends import check_hosted, hosted_of
from scaling.command.batches import check_batches
from scaling.command.design import sequential_plan
from scaling.command.fresh import FreshStart, fresh_start
from scaling.command.local_models import check_local_models
from scaling.command.options import Caller, Options
from scaling.command.waves import Decided, decided_so_far
from scaling.data import load_benchmark
from scaling.llm.network import why_unreachable
from scaling.llm.weights import located, with_named_files
from scaling.models import Model, find_model, load_registry, with_effort
from scaling.planning.optimizers import is_hosted, optimizes
from scaling.planning.plan import FITTED_FIELDS, Benchmarks, check_cell, check_count, check_kinds, expand, fit_to_data
from scaling.planning.study import SIZE_FIELDS, Study, phases_of
from scaling.ready import end_notes, missing_keys
from scaling.records.programs import ProgramDigest
from scaling.records.record import Record
from scaling.records.store import CellFiles, files_of, is_settled, read_records
from scaling.run.frozen import check_roles
from scaling.run.pipelines import make_core
from scaling.run.program_digest import program_digest
from scaling.run.start import fitted_start, read_start
from scaling.run.start_program import StartProgram
from scaling.run.task import CellTask
from scaling.types import Benchmark, Cell, HostedSettings, PlannedCell, Splits, UsageError


@dataclass(frozen=True)
class Sweep:
    """The cells of a study, each with what it needs, and what is to happen to them."""

    tasks: list[CellTask]
    settled: list[CellTask]
    waiting: list[CellTask]  # to be run
    skipped: list[tuple[CellTask, str]]  # those that lack what they need, and what that is
    models: dict[str, Model]
    hosted: HostedSettings | None  # where hosted jobs are sent; None without any
    notes: list[str]  # what a user should know of the models
    fresh: FreshStart | None
    decided: Decided | None = None  # what a sequential study has decided; None for a fixed one
    left_out: list[CellTask] = field(default_factory=list)  # what a sequential study does not need any more

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to run and nothing to decide."""
        return not self.waiting and (self.decided is None or self.decided.standing.is_ended)


def prepare_sweep(study: Study, options: Options, caller: Caller, benchmarks: Benchmarks) -> Sweep:
    """Check everything and load the data. Raises UsageError for whatever would stop the sweep, before it spends."""
    read_records([options.output_dir])  # one that cannot be read is told before anything is spent
    registry = registry_of(study, options)
    check_count(study, registry, options.many_cells)
    phases = [expand(part, benchmarks, registry, options.api_base) for part in phases_of(study)]
    cells = [cell for part in phases for cell in part]
    check_kinds(cells)
    models = models_of(cells, registry, options, benchmarks)
    hosted, lacks = hosted_of(cells, study.synth_mode, study.synth_rollouts, options)
    tasks = make_tasks(phases, models, study.exact_sizes, options.output_dir, caller.one_folder, benchmarks)
    tasks = [replace(task, equal_calls=options.equal_calls) for task in tasks]
    decided = _decided(study, tasks, options)
    fresh = fresh_start(options.output_dir, tasks) if options.fresh else None
    if fresh is not None and hosted is not None:
        hosted = replace(hosted, since=fresh.since)
    sweep = Sweep(tasks, [], [], [], models, hosted, end_notes(models.values(), registry), fresh, decided)
    for task in tasks:
        reason = _lacking(task, lacks, options)
        if _stays(task, options, reason is not None, fresh):
            sweep.settled.append(task)
        elif decided is not None and not decided.standing.may_run(task.cell):
            sweep.left_out.append(task)
        elif reason is not None:
            sweep.skipped.append((task, reason))
        else:
            sweep.waiting.append(task)
    if decided is not None and sweep.skipped:
        raise UsageError(
            f"--design sequential: looks judge all cells together, and {len(sweep.skipped)} cannot run "
            f"({sweep.skipped[0][1]}). Give what they need, or leave them out (--models, --optimizers)."
        )
    refuse_other_programs(sweep.settled)
    check_hosted(hosted, sweep.waiting, options)
    check_batches(sweep.waiting, options)
    check_servers(sweep.waiting, options)
    return sweep


def _decided(study: Study, tasks: Sequence[CellTask], options: Options) -> Decided | None:
    """A sequential study as far as it is decided; None for a fixed one. UsageError for what it was not started with."""
    plan = sequential_plan(study, tasks, options.output_dir)
    if plan is None:
        return None
    decided = decided_so_far(plan, options.output_dir)
    if options.fresh and decided.scores:
        raise UsageError(
            f"--fresh: looks of this study have decided on the scores in {options.output_dir}. Leave --fresh out to go "
            f"on, or give another --output-dir."
        )
    return decided


def registry_of(study: Study, options: Options) -> dict[str, Model]:
    """The models that have an entry, with the files that the study names as gguf:PATH."""
    names = [name for part in phases_of(study) for name in (*part.models, part.optimizer_model)]
    return with_named_files(load_registry(options.models_file), names)


def check_servers(waiting: Sequence[CellTask], options: Options) -> None:
    """Raise UsageError for a model at whose address nobody answers. Workers elsewhere may have servers of their own."""
    if options.dry_run or options.scheduler:
        return
    models = {model.id: model for task in waiting for model in (task.model, task.optimizer_model)}
    for model in models.values():
        reason = why_unreachable(model.api_base) if model.api_base else None
        if reason:
            raise UsageError(f"model '{model.id}': {reason}. Start its server, or correct its address.")


def models_named(cells: Sequence[PlannedCell], registry: dict[str, Model], options: Options) -> dict[str, Model]:
    """The models that the cells name, by id and in its order, with the files of local ones where they are here."""
    names = sorted({name for cell in cells for name in (cell.model, cell.optimizer_model)})
    return {name: located(find_model(name, registry, options.api_base), options.models_dir) for name in names}


def models_of(
    cells: Sequence[PlannedCell], registry: dict[str, Model], options: Options, benchmarks: Benchmarks
) -> dict[str, Model]:
    """The models of a sweep by id, with prices (under a cap), what benchmarks need, and then keys checked."""
    models = models_named(cells, registry, options)
    for model in models.values():
        if options.max_cost is not None and not model.has_price:
            raise UsageError(
                f"--max-cost: the price of '{model.id}' is not known, so its cost cannot be capped. "
                f"Add input_usd_per_million and output_usd_per_million with --models-file, or leave --max-cost out."
            )
    if not options.dry_run:
        for name in sorted({cell.benchmark for cell in cells}):
            benchmarks[name].get("needs", lambda: None)()
        _check_keys(cells, models, options.skip_missing_keys)
        check_local_models(cells, models, options)
    return models


def _check_keys(cells: Sequence[PlannedCell], models: Mapping[str, Model], skip: bool) -> None:
    """Raise UsageError that names all keys that are missing; where cells may be skipped, only if none can run."""
    missing = missing_keys(models[name] for name in sorted({name for cell in cells for name in _called(cell)}))
    some_can_run = any(missing_keys(models[name] for name in _called(cell)) is None for cell in cells)
    if missing is None or (skip and some_can_run):
        return
    rest = "" if skip else "type --skip-missing-keys to run what needs none of them, "
    raise UsageError(
        f"{missing}. Type: export NAME=... (or put NAME=... into .env), {rest}or use --models local/smollm2-135m."
    )


def _called(cell: PlannedCell) -> tuple[str, ...]:
    """The models that a cell calls; without an optimizer nobody proposes."""
    called = (cell.model, cell.optimizer_model) if optimizes(cell.optimizer) else (cell.model,)
    return tuple(dict.fromkeys(called))


def _lacking(task: CellTask, lacks_service: str | None, options: Options) -> str | None:
    """What a cell lacks that is skipped; None for one that can run."""
    if lacks_service is not None and is_hosted(task.cell.optimizer):
        return lacks_service
    models = {model.id: model for model in (task.model, task.optimizer_model)}
    return missing_keys(models[name] for name in _called(task.cell)) if options.skip_missing_keys else None


def make_tasks(
    phases: Sequence[Sequence[PlannedCell]],
    models: Mapping[str, Model],
    exact_sizes: frozenset[str],
    results: Path,
    one_folder: bool,
    benchmarks: Benchmarks,
) -> list[CellTask]:
    """Load each benchmark once, split its rows, and give every cell its sizes and its folder.

    phases: the cells of each phase of the study. A cell that data make the same as another's is one cell.
    one_folder: the cell's files go straight into `results`.
    """
    data = _Data(exact_sizes, benchmarks)
    tasks: dict[str, CellTask] = {}
    taken: set[Path] = set()
    for phase, planned in ((number, cell) for number, cells in enumerate(phases) for cell in cells):
        bench, start = data.benchmark(planned), data.start(planned)
        cell, splits = data.fitted(planned)
        cell = start.given_to(cell) if start else cell
        if cell.cell_id in tasks:
            continue
        files = CellFiles(results) if one_folder else files_of(cell, results, taken)
        taken.add(files.folder)
        if files.owner() not in (None, cell.cell_id):
            raise UsageError(
                f"{files.folder} holds another experiment ({files.owner()}). Give another output_dir, or move it away."
            )
        model = with_effort(models[cell.model], cell.reasoning_effort)
        optimizer_model = models[cell.optimizer_model]
        program = data.program(cell, bench, model, optimizer_model, start)
        tasks[cell.cell_id] = CellTask(cell, bench, splits, model, optimizer_model, files, program, start, phase)
    return list(tasks.values())


def refuse_other_programs(settled: Iterable[CellTask]) -> None:
    """Raise UsageError where a settled cell has the score of another program: its metric, say, has changed since."""
    others = [task for task in settled if has_other_program(task, task.files.read_record())]
    if others:
        more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
        raise UsageError(
            f"{others[0].files.folder}{more} holds the score of another program: its prompts, its metric or its "
            f"optimizer have changed since. Move it away (what was answered stays in the cache), give another "
            f"--output-dir, or type --fresh to pay for it again."
        )


def has_other_program(task: CellTask, record: Record | None) -> bool:
    """Whether the record is a score that is known to be of another program than the task's."""
    return record is not None and record.status == "ok" and record.program not in (None, task.program)


class _Data:
    """The benchmarks of a sweep and the rows of its cells, each loaded and split once."""

    def __init__(self, exact_sizes: frozenset[str], benchmarks: Benchmarks):
        self._exact_sizes, self._configs = exact_sizes, benchmarks
        self._loaded: dict[tuple[Any, ...], Benchmark] = {}
        self._fitted: dict[tuple[Any, ...], tuple[dict[str, Any], Splits]] = {}
        self._programs: dict[tuple[Any, ...], ProgramDigest] = {}
        self._starts: dict[str, StartProgram] = {}

    def benchmark(self, cell: PlannedCell) -> Benchmark:
        """The cell's benchmark with its rows loaded; UsageError where it has nothing that the cell asks for."""
        key = (cell.benchmark, cell.labels, cell.closed_book)
        if key not in self._loaded:
            config = self._configs[cell.benchmark]
            self._loaded[key] = load_benchmark(cell.benchmark, config, cell.data, cell.labels, cell.closed_book)
        if cell.feedback == "execution" and self._loaded[key].execution_feedback is None:
            raise UsageError(
                f"--feedback execution: {cell.benchmark} has nothing that could be run (humaneval has). "
                f"Type --feedback none."
            )
        return self._loaded[key]

    def fitted(self, planned: PlannedCell) -> tuple[Cell, Splits]:
        """The cell with the sizes that its data can fill, and its rows."""
        bench = self.benchmark(planned)
        sizes = tuple(getattr(planned, name) for name in SIZE_FIELDS)
        key = (id(bench), planned.run, planned.seed, planned.rollout_budget, planned.headroom, *sizes)
        if key not in self._fitted:
            cell, splits = fit_to_data(planned, bench, self._exact_sizes)
            self._fitted[key] = {name: getattr(cell, name) for name in FITTED_FIELDS}, splits
        values, splits = self._fitted[key]
        cell = Cell(**asdict(planned) | values)
        check_cell(cell, cell.select_size)
        return cell, splits

    def start(self, planned: PlannedCell) -> StartProgram | None:
        """The program that the cell is given; UsageError where it is for another, or a step to freeze is not there."""
        if planned.start_from is None and not planned.frozen_roles:
            return None
        core = make_core(planned, self.benchmark(planned))
        if planned.frozen_roles:
            check_roles(core, planned)
        if planned.start_from is None:
            return None
        if planned.start_from not in self._starts:
            self._starts[planned.start_from] = read_start(planned.start_from)
        return fitted_start(self._starts[planned.start_from], core, planned)

    def program(
        self, cell: Cell, bench: Benchmark, model: Model, optimizer_model: Model, start: StartProgram | None
    ) -> ProgramDigest:
        """The digest of the cell's program."""
        prompts = (cell.pipeline, cell.steps, cell.feedback, cell.wording, cell.start_sha256)
        key = (id(bench), *prompts, cell.optimizer, model, optimizer_model)
        if key not in self._programs:
            self._programs[key] = program_digest(cell, bench, model, optimizer_model, start)
        return self._programs[key]


def _lacks_equal_calls(task: CellTask, record: Record | None) -> bool:
    """Whether the score at equal calls is asked for and was not bought; the cell's other answers are in the cache."""
    wanted = task.equal_calls and task.buys_equal_calls and not has_other_program(task, record)
    return wanted and record is not None and record.status == "ok" and record.at_equal_calls_score is None


def _stays(task: CellTask, options: Options, is_skipped: bool, fresh: FreshStart | None) -> bool:
    """Whether the cell is left as it is; one that was skipped is, as long as it is still without what it needs."""
    record = task.files.read_record()
    if record is not None and record.status == "skipped":
        return is_skipped
    if fresh is not None and not fresh.has_run(task):
        return False
    if _lacks_equal_calls(task, record):
        return False
    return is_settled(record, options.retry_failed)
