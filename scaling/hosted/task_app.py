"""A benchmark as a task app, from the command line: its own process, on a port of this machine."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from scaling.arguments import one_line_errors
from scaling.data import load_benchmark
from scaling.dotenv import load_dotenv_file
from scaling.hosted.app import create_app
from scaling.hosted.rollout import Task
from scaling.hosted.server import listen, serve_until_stopped
from scaling.hosted.settings import LOOPBACK, app_keys
from scaling.planning.plan import fit_to_data, sizes_of
from scaling.planning.study import load_study
from scaling.run.pipelines import make_core
from scaling.types import EXIT_OK, TASK_APP_PORT, PlannedCell, UsageError


@one_line_errors
def main(name: str, config: dict[str, Any], steps: int, argv: list[str] | None = None) -> int:
    """The command line of a named task app: a benchmark's entry and a number of steps; returns the exit code."""
    options = parse(argv)
    load_dotenv_file()
    keys = app_keys()
    if options.insecure_loopback and options.host not in LOOPBACK:
        raise UsageError(f"--insecure-loopback with --host {options.host}: without a key only loopback is served.")
    if not keys and not options.insecure_loopback:
        raise UsageError(
            "ENVIRONMENT_API_KEY is not set. Type: export ENVIRONMENT_API_KEY=... (or put it into .env), or type "
            "--insecure-loopback."
        )
    task = load_task(name, config, steps, options)
    app = create_app(task, None if options.insecure_loopback else keys)
    listener = listen(options.host, options.port)
    locked = "no key is asked" if options.insecure_loopback else "with ENVIRONMENT_API_KEY"
    print(f"{task.name} on http://{options.host}:{options.port}, {locked}: {len(task.rows)} rows, none of them test")
    print(f"stages: {', '.join(task.stages)}; stop with Ctrl-C", flush=True)
    serve_until_stopped(app, listener)
    return EXIT_OK


def load_task(name: str, config: dict[str, Any], steps: int, options: argparse.Namespace) -> Task:
    """The task that the runner's cell with these sizes and this run has: its program, and its train and select rows."""
    study = load_study("mipro-comparison")
    sizes = {
        n: getattr(options, n) for n in ("train_size", "val_size", "test_size", "rollout_budget") if getattr(options, n)
    }
    study = replace(study, **sizes)
    planned = PlannedCell(
        benchmark=name, pipeline="chain", steps=steps, optimizer="synth_mipro", model="", optimizer_model="",
        run=options.run, seed=study.seed, rollout_budget=study.rollout_budget, data=options.data, labels=options.labels,
        **sizes_of(study, config),
    )  # fmt: skip
    bench = load_benchmark(name, config, options.data, options.labels)
    cell, splits = fit_to_data(planned, bench, frozenset(sizes))
    return Task(f"{name}_{steps}step", bench, make_core(cell, bench), splits.train + splits.select)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """A task app's options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--port", type=int, default=TASK_APP_PORT, metavar="N", help=f"default: {TASK_APP_PORT}")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="default: 127.0.0.1")
    parser.add_argument("--insecure-loopback", action="store_true", help="ask for no key (loopback only)")
    parser.add_argument("--data", default="hub", metavar="hub|sample|DIR", help="as in run_scaling_experiment.py")
    parser.add_argument("--labels", type=int, metavar="N", help="only the first N classes")
    parser.add_argument("--run", type=int, default=0, metavar="N", help="which draw of the rows (0)")
    for flag in ("--train-size", "--val-size", "--test-size", "--rollout-budget"):
        parser.add_argument(flag, type=int, metavar="N", help="default: that of --study mipro-comparison")
    return parser.parse_args(argv)
