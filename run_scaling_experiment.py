#!/usr/bin/env python
"""Measure how quality changes with the number of LLM calls, the prompt optimizer and the model, and what it costs.

From the shell: `python run_scaling_experiment.py --quick`. One cell from Python: `run_single_experiment(...)`.
From top to bottom: the benchmarks, one experiment, a sweep, the command line.
"""

from __future__ import annotations

from scaling import interrupt

interrupt.end_at_once(__name__)  # until `main`: the libraries take seconds to load

import re
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import (
    banking77,
    gsm8k,
    heartdisease,
    hotpotqa,
    humaneval,
    math,
    mathbench,
    own_csv,
    superglue,
    toolqa,
)  # fmt: skip
from scaling.arguments import DISK_FULL, one_line_errors
from scaling.command.backends import engine_of
from scaling.command.batches import batches_of
from scaling.command.beside import in_thread, one_at_a_time
from scaling.command.check import check_models
from scaling.command.fresh import forget, remember
from scaling.command.headroom import headroom_folder, run_headroom
from scaling.command.local_models import models_here, serving, task_at_address, time_lines, turns
from scaling.command.options import LIBRARY, Caller, Options, checked_options, parse, study_of
from scaling.command.order import in_order
from scaling.command.output import Plan, added_note, print_end, print_plan
from scaling.command.prepare import Sweep, prepare_sweep
from scaling.command.tracking import tracking
from scaling.command.wave_lines import teller
from scaling.command.waves import waves
from scaling.concurrency import Concurrency, most_at_a_time
from scaling.dotenv import load_dotenv_file
from scaling.llm.cache import Cache
from scaling.llm.gateway import Gateway
from scaling.llm.weights import fetched
from scaling.planning.study import SIZE_FIELDS, Study, load_study, narrow
from scaling.records.codec import as_plain
from scaling.records.record import Record
from scaling.records.store import CACHE, LEDGER, LOG, is_settled, write_aggregate, write_plan
from scaling.redact import redact
from scaling.run.pipelines import MultiStepClassifier
from scaling.run.progress import ProgressReporter, quiet
from scaling.run.runner import Settings, skip_cell
from scaling.run.task import CellTask
from scaling.schema import SAFE_NAME
from scaling.types import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, SweepInterrupted, UsageError

__all__ = ["BENCHMARK_CONFIG", "MultiStepClassifier", "Options", "main", "run_single_experiment", "run_sweep"]

# The benchmarks that come with the program.
SHIPPED: dict[str, dict[str, Any]] = {
    "banking77": banking77.CONFIG,
    "heartdisease": heartdisease.CONFIG,
    "hotpotqa": hotpotqa.CONFIG,
    "gsm8k": gsm8k.CONFIG,
    "math": math.CONFIG,
    "mathbench": mathbench.CONFIG,
    "superglue": superglue.CONFIG,
    **superglue.CONFIGS,
    "humaneval": humaneval.CONFIG,
    "toolqa": toolqa.CONFIG,
}
# To add a benchmark, add an entry: signature, loader, metric, train_seeds and val_seeds are enough.
BENCHMARK_CONFIG: dict[str, dict[str, Any]] = dict(SHIPPED)


async def run_single_experiment(
    benchmark: str,
    num_steps: int,
    optimizer: str,
    output_dir: Path,
    rollout_budget: int = 200,
    model: str | None = None,
    seed: int = 0,
    data: str = "hub",
    pipeline: str = "chain",
    run: int = 0,
    max_cost: float | None = None,
    max_concurrency: Concurrency = None,
    api_base: str | None = None,
    models_file: Path | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Run one cell, write its files straight into `output_dir`, and return its record.

    rollout_budget: runs of the whole program that the optimizer may make. model: a name of LiteLLM's table or of
    scaling/models.toml (the pipeline study's by default). settings: other fields of a study: train_size, val_size,
    test_size (rows), temperature, labels, optimizer_model. A settled cell is not run again: its record is returned.
    Several may run beside each other in one process (`asyncio.gather`); a cancelled one stops at its next call.
    Raises UsageError for what cannot be; what happens inside the cell is in the record's status.
    """
    load_dotenv_file()
    exact_sizes = frozenset(name for name in SIZE_FIELDS if name in settings)
    study = narrow(
        replace(load_study("pipeline"), name="single", design=None, steps_by_benchmark={}, questions=[]),
        benchmarks=[benchmark], pipelines=[pipeline], steps=[num_steps], optimizers=[optimizer],
        models=[model] if model else None, rollout_budget=rollout_budget, seed=seed, run_list=[run], data=data,
        exact_sizes=exact_sizes, **settings,
    )  # fmt: skip
    options = Options(
        output_dir=Path(output_dir), max_cost=max_cost, max_concurrency=max_concurrency, api_base=api_base,
        models_file=models_file,
    )  # fmt: skip
    async with one_at_a_time(options.output_dir):
        return as_plain((await in_thread(run_sweep, study, options))[0])


def run_sweep(study: Study, options: Options, caller: Caller = LIBRARY) -> list[Record]:
    """Run the cells of a study that are not settled, and return the records of all of them.

    Everything a user can get wrong raises UsageError before the first call.
    """
    options = checked_options(options)
    run_together = engine_of(options)
    study = with_own_files(study)
    sweep = prepare_sweep(study, options, caller, BENCHMARK_CONFIG)
    plan = print_plan(study, sweep, options)
    if options.dry_run:
        return records_of(sweep.settled)
    for task, reason in sweep.skipped:
        skip_cell(task, reason)
    if not sweep.is_over:
        sweep = replace(sweep, models={name: fetched(model) for name, model in sweep.models.items()})
        run_waiting(sweep, plan, run_together, options, caller)
    else:
        write_aggregate(options.output_dir)
    records = records_of(sweep.tasks)
    if (
        sweep.fresh
        and len(records) + len(sweep.left_out) == len(sweep.tasks)
        and all(is_settled(record) for record in records)
    ):
        forget(options.output_dir)
    return records


def run_waiting(
    sweep: Sweep,
    plan: Plan,
    run_together: Callable[..., Any],
    options: Options,
    caller: Caller,
) -> None:
    """Run the cells that wait, the longest chain of calls first, with what they share: cache, gateway, model server."""
    results, log = options.output_dir, options.output_dir / LOG
    since = 0.0
    if sweep.fresh:
        remember(results, sweep.fresh)
        since = sweep.fresh.since
    with ExitStack() as stack:
        cache = Cache(results / CACHE, since, results / LEDGER)
        stack.callback(cache.close)
        gateway = Gateway(cache, options.max_cost, options.max_concurrency)
        caller.on_start(gateway)
        one_at_a_time = all(most_at_a_time(task.model, options.max_concurrency) == 1 for task in sweep.waiting)
        tasks = in_order(sweep.waiting, plan.estimates, one_at_a_time)
        cells = [task.cell for task in tasks]
        write_plan(results, plan.of(cells))
        screen = stack.enter_context(quiet(log)) if caller.owns_process else sys.stdout
        reporter = ProgressReporter(cells, plan.estimates, results, gateway, screen, live=caller.owns_process)
        stack.enter_context(reporter.running())
        reporter.on_end = stack.enter_context(tracking(options, tasks, reporter.say, BENCHMARK_CONFIG))
        settings = Settings(
            timeout=options.timeout, max_error_rate=options.max_error_rate, log=log, hosted=sweep.hosted,
            batches=stack.enter_context(batches_of(options, gateway, since, reporter.say)),
        )  # fmt: skip
        reporter.look_ahead(plan.ahead)
        tell = teller(sweep, plan.estimates, reporter, results)
        for wave in waves(sweep.decided, sweep.tasks, tasks, results, tell):
            for group in turns(wave, sweep.models):
                with serving(models_here(group, sweep.models, options)) as addresses:
                    for line in time_lines(group, plan.estimates, addresses):
                        reporter.say(line)
                    run_together([task_at_address(t, addresses) for t in group], gateway, settings, reporter, results)
        if cache.damaged:
            reporter.say(f"note: {cache.damaged} stored answers were damaged and were asked for again")


def records_of(tasks: Sequence[CellTask]) -> list[Record]:
    """The records of cells that have run; one that was stopped before its record has none."""
    return [record for task in tasks if (record := task.files.read_record()) is not None]


def with_own_files(study: Study) -> Study:
    """Make an entry of BENCHMARK_CONFIG of each benchmark that is a CSV file; the study then has it by its stem."""
    paths = {name: Path(name) for name in study.benchmarks if name.lower().endswith(".csv")}
    stems = [path.stem for path in paths.values()]
    for path in paths.values():
        known = BENCHMARK_CONFIG.get(path.stem)
        if stems.count(path.stem) > 1 or (known and known["metric"] is not own_csv.metric):
            raise UsageError(f"{path}: there is another benchmark called '{path.stem}'. Give the file another name.")
        if not re.search(SAFE_NAME, path.stem):
            raise UsageError(f"{path}: its name becomes a folder's. Name it with letters, digits, and . _ + - inside.")
        BENCHMARK_CONFIG[path.stem] = own_csv.entry(path)
    return replace(study, benchmarks=[paths[name].stem if name in paths else name for name in study.benchmarks])


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code (0 well, 1 failed cells, 2 usage, 3 cost cap, 130 interrupted)."""
    interrupt.end_in_order()
    command = parse(argv, __doc__, list(BENCHMARK_CONFIG))
    results = command.options.output_dir
    try:
        load_dotenv_file()
        study = study_of(command, BENCHMARK_CONFIG)
        added = [n for n, c in BENCHMARK_CONFIG.items() if n not in SHIPPED and c.get("metric") is not own_csv.metric]
        if note := added_note(study, added):
            print(note)
        if command.check:
            is_ready = check_models(with_own_files(study), command.options, BENCHMARK_CONFIG)
            return EXIT_OK if is_ready else EXIT_USAGE
        if study.headroom:
            results = headroom_folder(results)
            records = run_headroom(with_own_files(study), command.options, run_sweep, BENCHMARK_CONFIG)
        else:
            records = run_sweep(study, command.options, Caller(owns_process=True))
        if study.compares_mipro and not study.headroom and not command.options.dry_run:
            from scaling.analysis import mipro_table  # pandas and its friends, which running does not need

            print("\n".join(mipro_table.finish(results, records)))
    except SweepInterrupted as error:
        print(
            f"error: {redact(str(error))}. Settled cells are in {results}; type the same command to continue.",
            file=sys.stderr,
        )
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        print(f"\ninterrupted. Settled cells are in {results}; type the same command to continue.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:
        is_full = error.errno in DISK_FULL
        advice = "Free the disk and type the same command to continue" if is_full else "Give another --output-dir"
        print(f"error: cannot write the results ({redact(str(error))}). {advice}.", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK if command.options.dry_run else print_end(records, results)


if __name__ == "__main__":
    sys.exit(main())
