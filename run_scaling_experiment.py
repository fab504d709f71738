#!/usr/bin/env python
"""Measure how quality changes with the number of LLM calls, the prompt optimizer and the model, and what it costs.

From the shell: `python run_scaling_experiment.py --quick`. One cell from Python: `run_single_experiment(...)`.
From top to bottom: the benchmarks, one experiment, a sweep, the command line.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import operator
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else DSPy asks the network for prices at start

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
from scaling import plan
from scaling.codec import as_plain
from scaling.data import check_config, load_benchmark
from scaling.llm import local_server
from scaling.llm.cache import Cache
from scaling.llm.check import print_check
from scaling.llm.gateway import Gateway
from scaling.models import Model, find_model, load_registry, require_key
from scaling.optimizers import OPTIMIZERS, hosted_names, is_hosted
from scaling.pipelines import PIPELINES
from scaling.record import Record
from scaling.run.estimate import Estimate, estimate, figures, minutes, print_estimates, seconds
from scaling.run.pipelines import MultiStepClassifier
from scaling.run.progress import ProgressReporter, quiet
from scaling.run.runner import CellTask, Settings, run_cells, skip_cell
from scaling.store import CACHE, LOG, CellFiles, files_of, is_settled, read_records, write_aggregate, write_plan
from scaling.types import (
    EXIT_CAP,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    Benchmark,
    Cell,
    Splits,
    SweepInterrupted,
    UsageError,
)

__all__ = ["BENCHMARK_CONFIG", "MultiStepClassifier", "main", "run_single_experiment", "run_sweep"]

# To add a benchmark, add an entry: signature, loader, metric, train_seeds and val_seeds are enough.
BENCHMARK_CONFIG: dict[str, dict[str, Any]] = {
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
    max_concurrency: int | None = None,
    api_base: str | None = None,
    models_file: Path | None = None,
    **sizes: Any,
) -> dict[str, Any]:
    """Run one cell, write its files straight into `output_dir`, and return its record.

    rollout_budget: runs of the whole program that the optimizer may make. model: a name of
    scaling/models.toml (the pipeline study's by default). sizes: train_size, val_size, test_size (rows),
    temperature, labels, optimizer_model. A settled cell is not run again: its record is returned.
    Raises UsageError for what cannot be; what happens inside the cell is in the record's status.
    """
    default = plan.load_study("pipeline")
    study = plan.narrow(
        replace(default, name="single", steps_by_benchmark={}),
        benchmarks=[benchmark],
        pipelines=[pipeline],
        steps=[num_steps],
        optimizers=[optimizer],
        models=[model] if model else None,
        rollout_budget=rollout_budget,
        seed=seed,
        run_list=[run],
        data=data,
        **sizes,
    )
    options = argparse.Namespace(
        output_dir=Path(output_dir), max_cost=max_cost, max_concurrency=max_concurrency, api_base=api_base,
        models_file=models_file, by_hand=set(sizes), flat=True,
    )  # fmt: skip
    gateways: list[Gateway] = []
    options.on_start = gateways.append
    try:
        return await asyncio.to_thread(_alone_in_its_folder, study, options)
    except asyncio.CancelledError:
        for gateway in gateways:
            gateway.stop("interrupted", "the experiment was cancelled")
        raise


def _alone_in_its_folder(study: plan.Study, options: argparse.Namespace) -> dict[str, Any]:
    """The record of a study of one cell; a second one of this process in the same folder waits for the first."""
    with _FOLDERS_LOCK:
        folder = _FOLDERS.setdefault(options.output_dir.resolve(), threading.Lock())
    with folder:
        return as_plain(run_sweep(study, options)[0])


_FOLDERS: dict[Path, threading.Lock] = {}
_FOLDERS_LOCK = threading.Lock()


def run_sweep(study: plan.Study, options: argparse.Namespace) -> list[Record]:
    """Run the cells of a study that are not settled, and return the records of all of them.

    Everything a user can get wrong raises UsageError before the first call. options: the command line's.
    """
    options = _with_defaults(options)
    check_options(options)
    run = engine(options)
    read_records([options.output_dir])  # one that cannot be read is told before anything is spent
    registry = load_registry(options.models_file)
    study = with_own_files(study)
    phases = [plan.expand(part, list(BENCHMARK_CONFIG), registry, options.api_base) for part in plan.phases_of(study)]
    cells = [cell for part in phases for cell in part]
    models = _models_of(cells, registry, options)
    hosted, lacks = hosted_of(cells, options)
    work = prepare(phases, models, options)
    settled, waiting, skipped = [], [], []
    for item in work:
        without = lacks is not None and is_hosted(item.cell.optimizer)
        (settled if _skip(item, options, without) else skipped if without else waiting).append(item)
    check_hosted(hosted, waiting, options)
    estimates = print_plan(study, waiting, settled, models, options)
    if skipped:
        print(f"note: {len(skipped)} cells of {skipped[0].cell.optimizer} are skipped: {lacks}")
    if options.dry_run:
        return [item.files.read_record() for item in settled]
    for item in skipped:
        skip_cell(item, lacks)
    if not waiting:
        write_aggregate(options.output_dir)
        return [item.files.read_record() for item in work]
    # A worker of Dask finds the embedded model on its own host.
    with serving(models.values() if options.engine == "local" else []) as address, ExitStack() as stack:
        cache = Cache(options.output_dir / CACHE, fresh=options.fresh)
        stack.callback(cache.close)
        gateway = Gateway(cache, options.max_cost, options.max_concurrency)
        options.on_start(gateway)
        waiting = [_at_address(item, address) for item in waiting]
        # At one call at a time no order is faster: the shortest cells go first, for something to read soon.
        shortest_first = all(item.model.places(options.max_concurrency) == 1 for item in waiting)
        direction = 1 if shortest_first else -1
        waiting.sort(key=lambda item: (item.phase, direction * estimates[item.cell.cell_id].chain[1]))
        cells_by_id = {item.cell.cell_id: asdict(item.cell) for item in waiting}
        write_plan(options.output_dir, {i: asdict(one) | {"cell": cells_by_id[i]} for i, one in estimates.items()})
        log = options.output_dir / LOG
        screen = stack.enter_context(quiet(log)) if options.owns_process else sys.stdout
        cells = [item.cell for item in waiting]
        reporter = ProgressReporter(cells, estimates, options.output_dir, gateway, screen, live=options.owns_process)
        stack.enter_context(reporter.running())
        settings = Settings(timeout=options.timeout, max_error_rate=options.max_error_rate, log=log, hosted=hosted)
        run(waiting, gateway, settings, reporter, options.output_dir)
    return [item.files.read_record() for item in work]


def engine(options: argparse.Namespace) -> Callable[..., Any]:
    """What runs the cells together: threads of this process, or Dask's workers. UsageError where Dask is not there."""
    if options.engine == "local":
        return run_cells
    try:
        from scaling.distributed import engine as cluster
    except ImportError as error:
        raise UsageError(
            f"--engine dask cannot be used here ({error}). Type: pip install 'dask[distributed]', or --engine local."
        ) from None
    workers = options.workers or os.cpu_count() or 1
    return functools.partial(cluster.run_cells, scheduler=options.scheduler, workers=workers)


def hosted_of(cells: list[Cell], options: argparse.Namespace) -> tuple[Any, str | None]:
    """Where the cells' hosted jobs go (None without such cells), and why they cannot run here (None: they can).

    Raises UsageError for flags of hosted jobs without one, and for a sweep of nothing else that cannot run.
    """
    if not any(is_hosted(cell.optimizer) for cell in cells):
        flags = {"--mode": options.synth_mode, "--rollouts": options.synth_rollouts, "--local": options.local,
                 "--task-app-url": options.task_app_url, "--task-app-port": options.task_app_port,
                 "--job-timeout": options.job_timeout}  # fmt: skip
        for flag in (flag for flag, value in flags.items() if value):
            raise UsageError(f"{flag} is for {hosted_names()[0]}, which is not among the optimizers. Leave {flag} out.")
        return None, None
    if options.engine == "dask":
        name = hosted_names()[0]
        raise UsageError(f"{name} runs its task app in this process. Type --engine local, or leave it out.")
    try:
        from scaling.hosted import app, settings  # noqa: F401  (app: FastAPI, which nothing else here needs)
    except ImportError as error:
        raise UsageError(f"{hosted_names()[0]} needs {error.name}. Type: pip install -r requirements-dev.txt") from None
    if options.task_app_port and not options.task_app_url:
        raise UsageError("--task-app-port says where --task-app-url leads to. Give both, or neither.")
    given = {"task_app_port": options.task_app_port, "job_timeout": options.job_timeout}
    hosted = settings.HostedSettings(
        settings.backend_of(options.local), options.task_app_url, timeout=options.timeout, fresh=options.fresh,
        **{name: value for name, value in given.items() if value is not None},
    )  # fmt: skip
    lacks = None if options.dry_run else settings.missing(hosted)
    if lacks and all(is_hosted(cell.optimizer) for cell in cells):
        raise UsageError(lacks)
    return hosted, lacks


def check_hosted(hosted: Any, waiting: list[CellTask], options: argparse.Namespace) -> None:
    """Raise UsageError for what would stop the hosted cells that are to run: backend, key, tunnel, models."""
    cells = [item for item in waiting if is_hosted(item.cell.optimizer)]
    if cells and not options.dry_run:
        from scaling.hosted import client

        models = {model.id: model for item in cells for model in (item.model, item.optimizer_model)}
        client.check(hosted, list(models.values()), cells[0].cell.synth_mode)


def with_own_files(study: plan.Study) -> plan.Study:
    """Make an entry of BENCHMARK_CONFIG of each benchmark that is a CSV file; the study then has it by its stem."""
    paths = {name: Path(name) for name in study.benchmarks if name.lower().endswith(".csv")}
    stems = [path.stem for path in paths.values()]
    for path in paths.values():
        known = BENCHMARK_CONFIG.get(path.stem)
        if stems.count(path.stem) > 1 or (known and known["metric"] is not own_csv.metric):
            raise UsageError(f"{path}: there is another benchmark called '{path.stem}'. Give the file another name.")
        BENCHMARK_CONFIG[path.stem] = own_csv.entry(path)
    return replace(study, benchmarks=[paths[name].stem if name in paths else name for name in study.benchmarks])


def prepare(phases: list[list[Cell]], models: dict[str, Model], options: argparse.Namespace) -> list[CellTask]:
    """Load each benchmark once, deal its rows, and give every cell its sizes and its folder.

    phases: the cells of each phase of the study. A cell that data make the same as another's is one cell.
    """
    loaded: dict[tuple, Benchmark] = {}
    dealt: dict[tuple, tuple[Cell, Splits]] = {}
    work: dict[str, CellTask] = {}
    taken: set[Path] = set()
    for phase, cell in ((number, cell) for number, cells in enumerate(phases) for cell in cells):
        key = (cell.benchmark, cell.labels, cell.closed_book)
        if key not in loaded:
            config = BENCHMARK_CONFIG[cell.benchmark]
            loaded[key] = load_benchmark(cell.benchmark, config, cell.data, cell.labels, cell.closed_book)
        bench = loaded[key]
        key += (cell.run, cell.seed, cell.rollout_budget, *(getattr(cell, name) for name in plan.SIZE_FIELDS))
        if key not in dealt:
            dealt[key] = plan.fit_to_data(cell, bench, options.by_hand)
        fitted, rows = dealt[key]
        if cell.feedback == "execution" and bench.execution_feedback is None:
            raise UsageError(
                f"--feedback execution: {cell.benchmark} has nothing that could be run (humaneval has). "
                f"Type --feedback none."
            )
        sized = replace(cell, **{name: getattr(fitted, name) for name in plan.FITTED_FIELDS})
        plan.check_cell(sized)
        if sized.cell_id in work:
            continue
        files = CellFiles(options.output_dir) if options.flat else files_of(sized, options.output_dir, taken)
        taken.add(files.folder)
        if files.owner() not in (None, sized.cell_id):
            raise UsageError(
                f"{files.folder} holds another experiment ({files.owner()}). Give another output_dir, or move it away."
            )
        item = CellTask(sized, bench, rows, models[sized.model], models[sized.optimizer_model], files, phase)
        work[sized.cell_id] = item
    return list(work.values())


def print_plan(
    study: plan.Study,
    waiting: list[CellTask],
    settled: list[CellTask],
    models: dict[str, Model],
    options: argparse.Namespace,
) -> dict[str, Estimate]:
    """Print the plan before it is run, a line a cell with calls and list cost (low to high); the estimates by cell."""
    skipped = f", {len(settled)} settled already" if settled else ""
    used = sorted({item.cell.model for item in waiting})
    on = "" if not used else f" on {used[0]}" if len(used) == 1 else f" on {len(used)} models"
    print(f"study {study.name}: {len(waiting)} cells to run{on}{skipped}; results in {options.output_dir}")
    if not waiting:
        return {}
    for warning in plan.warnings([item.cell for item in waiting]):
        print(f"note: {warning}")
    for note in _size_notes(study, waiting):
        print(f"note: {note}")
    estimates = {
        item.cell.cell_id: estimate(item.cell, item.bench, item.splits, item.model, item.optimizer_model)
        for item in waiting
    }
    print_estimates([item.cell for item in waiting], estimates)
    total = functools.reduce(operator.add, estimates.values())
    places = min(model.places(options.max_concurrency) for model in models.values())
    low, high = seconds(total, places)
    print(f"in all {', '.join(figures(total))}; {minutes(low, high)} at {places} calls at a time, a second each")
    if study.compares_mipro:
        for note in plan.power_notes([item.cell for item in waiting]):
            print(f"note: {note}")
    if any(item.bench.source == "sample" for item in waiting):
        print("note: the rows are the small samples that ship with this program: this shows the way, not a result")
    for name, note in sorted({(item.cell.benchmark, item.bench.note) for item in waiting if item.bench.note}):
        print(f"note: {name}: {note}")
    for name in sorted({item.cell.benchmark for item in waiting if item.cell.closed_book}):
        print(f"note: closed-book: {name} is asked without the tables that hold the answers")
    sys.stdout.flush()
    return estimates


@contextmanager
def serving(models: Any) -> Iterator[str | None]:
    """The embedded model's server while the block runs, if one of the models is embedded; gives its address."""
    if not any(model.embedded for model in models):
        yield None
        return
    with local_server.serve() as address:
        yield address


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code (0 well, 1 failed cells, 2 usage, 3 cost cap, 130 interrupted)."""
    options = parse(argv)
    try:
        load_dotenv_file(Path(".env"))
        study = plan.narrow(plan.load_study(options.study), **_overrides(options))
        options.by_hand = {name for name in plan.SIZE_FIELDS if getattr(options, name) is not None}
        options.owns_process = True
        if options.check:
            return EXIT_OK if check(study, options) else EXIT_USAGE
        records = run_sweep(study, options)
        if study.compares_mipro and not options.dry_run:
            from scaling.analysis import mipro_table  # pandas and its friends, which running does not need

            print("\n".join(mipro_table.finish(options.output_dir, records)))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except SweepInterrupted as error:
        print(f"error: {error}. Settled cells are in {options.output_dir}; the same command goes on.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        print(f"\ninterrupted. Settled cells are in {options.output_dir}; the same command goes on.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except OSError as error:
        print(f"error: cannot write the results ({error}). Free the disk; the same command goes on.", file=sys.stderr)
        return EXIT_FAILED
    return report(records, options)


def check(study: plan.Study, options: argparse.Namespace) -> bool:
    """Ask each model of the study one small question and print how it went; whether all are ready."""
    check_options(options)
    registry = load_registry(options.models_file)
    study = with_own_files(study)
    cells = plan.expand(study, list(BENCHMARK_CONFIG), registry, options.api_base)
    names = sorted({name for cell in cells for name in (cell.model, cell.optimizer_model)})
    models = [find_model(name, registry, options.api_base) for name in names]
    with serving(models) as address:
        return print_check([_placed(model, address) for model in models], options.timeout)


def report(records: list[Record], options: argparse.Namespace) -> int:
    """Say how the sweep ended, and what to type next; returns the exit code."""
    if options.dry_run:
        return EXIT_OK
    by_status: dict[str, int] = {}
    for record in records:
        by_status[record.status] = by_status.get(record.status, 0) + 1
    print(f"{len(records)} cells: " + ", ".join(f"{count} {status}" for status, count in sorted(by_status.items())))
    if by_status.get("interrupted"):
        print("the same command goes on where it stopped")
        return EXIT_INTERRUPTED
    if by_status.get("budget"):
        print("the same command with a higher --max-cost goes on where it stopped")
        return EXIT_CAP
    if by_status.get("error") or by_status.get("invalid"):
        print("the reasons are in the cells' results.json; the same command with --retry-failed tries them again")
        return EXIT_FAILED
    print(f"tables and figures: python analyze_results.py --results-dir {options.output_dir}")
    return EXIT_OK


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line's options; flags that narrow or override the study are None when not given."""
    names = ", ".join(plan.study_names())
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    what = parser.add_argument_group("what to run")
    what.add_argument(
        "--study", "--config", default="pipeline", metavar="NAME|FILE.toml", help=f"one of: {names}; or a file"
    )
    what.add_argument("--phase", metavar="1|2|3|all", help="of a study with phases (default: its first)")
    what.add_argument("--quick", action="store_const", const="quick", dest="study", help="the demo: --study quick")
    axes = parser.add_argument_group("narrow or override the study")
    axes.add_argument(
        "--benchmarks", "--datasets", nargs="+", metavar="NAME", help=", ".join([*BENCHMARK_CONFIG, "FILE.csv"])
    )
    axes.add_argument("--pipelines", nargs="+", metavar="NAME", help=", ".join(PIPELINES))
    axes.add_argument("--steps", nargs="+", type=int, metavar="N", help="LLM calls an example, 1 to 5")
    axes.add_argument("--optimizers", nargs="+", metavar="NAME", help=", ".join(OPTIMIZERS))
    axes.add_argument(
        "--models", "--model", nargs="+", metavar="NAME",
        help="ids or aliases of scaling/models.toml, globs ('groq/*'), size:small, size:medium, size:large",
    )  # fmt: skip
    axes.add_argument(
        "--optimizer-model", metavar="NAME", help="reflects and proposes (default: the study's, else the model)"
    )
    axes.add_argument("--runs", type=int, metavar="N", help="independent repeats")
    axes.add_argument("--rollout-budget", type=int, metavar="N", help="program runs an optimizer may make in a cell")
    axes.add_argument("--train-size", type=int, metavar="N")
    axes.add_argument("--val-size", type=int, metavar="N")
    axes.add_argument("--test-size", type=int, metavar="N")
    axes.add_argument("--labels", type=int, metavar="N", help="only the first N classes")
    axes.add_argument(
        "--feedback",
        metavar="NAME",
        help="what self_correct hears of its answers: none, oracle (cheating), execution",
    )
    axes.add_argument("--data", metavar="hub|sample|DIR", help="Hugging Face hub, shipped samples, or a folder")
    axes.add_argument(
        "--closed-book", action="store_true", default=None, help="ask a benchmark with tools without them"
    )
    axes.add_argument("--trials", type=int, metavar="N", help="the budget as trials of MIPROv2, for all optimizers")
    axes.add_argument(
        "--mode", dest="synth_mode", metavar="offline|online", help="of synth_mipro: who runs the rollouts (offline)"
    )
    axes.add_argument(
        "--rollouts", dest="synth_rollouts", type=int, metavar="N", help="of synth_mipro: rollouts a candidate"
    )
    where = parser.add_argument_group("how to run it")
    where.add_argument("--output-dir", type=Path, default=Path("results"), metavar="DIR")
    where.add_argument(
        "--models-file", type=Path, metavar="FILE.toml", help="more models, in the format of models.toml"
    )
    where.add_argument("--api-base", metavar="URL", help="an OpenAI-compatible server, with --models openai/NAME")
    where.add_argument("--max-cost", type=float, metavar="USD", help="stop before the whole sweep costs more")
    where.add_argument("--max-concurrency", type=int, metavar="N", help="calls at a time to a provider")
    where.add_argument(
        "--max-error-rate", type=float, default=0.02, metavar="RATE", help="above it a cell is invalid (0.02)"
    )
    where.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS", help="of one call (120)")
    where.add_argument("--local", action="store_true", help="Synth's backend on this machine, port 8000")
    where.add_argument("--task-app-url", metavar="URL", help="where Synth reaches the task app, in place of a tunnel")
    where.add_argument(
        "--task-app-port", type=int, metavar="N", help="the port here that --task-app-url leads to (8015)"
    )
    where.add_argument("--job-timeout", type=float, metavar="SECONDS", help="of a hosted job (3600)")
    where.add_argument(
        "--engine", choices=["local", "dask"], default="local", help="threads of this process, or Dask's workers"
    )
    where.add_argument("--workers", type=int, metavar="N", help="worker processes here (--engine dask; one a core)")
    where.add_argument("--scheduler", metavar="ADDRESS", help="a Dask cluster that is there (--engine dask)")
    where.add_argument(
        "--dry-run", "--estimate-cost", action="store_true", help="print the plan with its cost, and stop"
    )
    where.add_argument("--check", action="store_true", help="ask each model one small question, and stop")
    where.add_argument("--retry-failed", action="store_true", help="run failed and invalid cells again")
    where.add_argument(
        "--fresh", action="store_true", help="run settled cells again, and take no answer from the cache"
    )
    return parser.parse_args(argv)


def check_options(options: argparse.Namespace) -> None:
    """Raise UsageError for a number that makes no sense."""
    for name, low, example in (
        ("max_cost", 0.0, 10), ("max_concurrency", 1, 8), ("timeout", 0.1, 120), ("job_timeout", 0.1, 3600),
        ("workers", 1, 4),
    ):  # fmt: skip
        value = getattr(options, name)
        if value is not None and not low <= value < float("inf"):
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"{flag} {value} is not possible; give {low:g} or more. Type {flag} {example}.")
    if not 0 <= options.max_error_rate <= 1:
        raise UsageError(f"--max-error-rate {options.max_error_rate} is not a share; give 0 to 1. Type 0.02.")
    if options.engine == "local" and (options.workers or options.scheduler):
        raise UsageError("--workers and --scheduler are Dask's. Type --engine dask with them, or leave them out.")
    if options.workers and options.scheduler:
        raise UsageError("--workers starts processes here, --scheduler uses a cluster that is there. Type one of them.")


def load_dotenv_file(path: Path) -> None:
    """Read .env; the environment wins. Raises UsageError for a line that does not parse."""
    if not path.exists():
        return
    from dotenv import dotenv_values

    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        text = line.strip().removeprefix("export ")
        if text and not text.startswith("#") and not text.split("=", 1)[0].strip().isidentifier():
            raise UsageError(f".env, line {number} does not parse. Write NAME=value, or a comment starting with #.")
    for name, value in dotenv_values(path).items():
        if value is not None:
            os.environ.setdefault(name, value)


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    axes = {f.name for f in fields(plan.Study)} | {"trials"}
    return {name: value for name, value in vars(options).items() if name in axes}


def _with_defaults(options: argparse.Namespace) -> argparse.Namespace:
    """A Namespace with every option, for callers that give only some."""
    base = {**vars(parse([])), "by_hand": set(), "flat": False, "owns_process": False, "on_start": lambda gateway: None}
    return argparse.Namespace(**{**base, **vars(options)})


def _models_of(cells: list[Cell], registry: dict[str, Model], options: argparse.Namespace) -> dict[str, Model]:
    """The models of a sweep by id, with prices (under a cap), what benchmarks need, and then keys checked."""
    for cell in cells:
        check_config(cell.benchmark, BENCHMARK_CONFIG[cell.benchmark])
    names = sorted({name for cell in cells for name in (cell.model, cell.optimizer_model)})
    models = {name: find_model(name, registry, options.api_base) for name in names}
    for model in models.values():
        if options.max_cost is not None and not model.has_price:
            raise UsageError(
                f"--max-cost: the price of '{model.id}' is not known, so its cost cannot be capped. "
                f"Add input_usd_per_million and output_usd_per_million with --models-file, or leave --max-cost out."
            )
    if not options.dry_run:
        for name in sorted({cell.benchmark for cell in cells}):
            BENCHMARK_CONFIG[name].get("needs", lambda: None)()
        for model in models.values():
            require_key(model)
            if model.embedded:
                local_server.weights_path()
    return models


def _skip(item: CellTask, options: argparse.Namespace, without: bool) -> bool:
    """Whether the cell is left as it is; one that was skipped is, as long as it is still without what it needs."""
    record = item.files.read_record()
    if record is not None and record.status == "skipped":
        return without
    return not options.fresh and is_settled(record, options.retry_failed)


def _at_address(item: CellTask, address: str | None) -> CellTask:
    """The cell's work with the embedded model at the address it is served at now."""
    models = _placed(item.model, address), _placed(item.optimizer_model, address)
    return replace(item, model=models[0], optimizer_model=models[1])


def _placed(model: Model, address: str | None) -> Model:
    return replace(model, api_base=address) if model.embedded else model


def _size_notes(study: plan.Study, work: list[CellTask]) -> list[str]:
    notes = {}
    asked = [(part.train_size, part.val_size, part.test_size) for part in plan.phases_of(study)]
    for item in work:
        cell = item.cell
        if item.splits.split == "check":
            notes[cell.benchmark] = (
                f"{cell.benchmark} has no test_seeds: the final score is on its {cell.test_size} check rows"
            )
        elif (cell.train_size, cell.val_size, cell.test_size) not in asked:
            notes[cell.benchmark] = (
                f"{cell.benchmark} has fewer rows than asked for: "
                f"{cell.train_size} train, {cell.val_size} val, {cell.test_size} test"
            )
    return list(notes.values())


if __name__ == "__main__":
    sys.exit(main())
