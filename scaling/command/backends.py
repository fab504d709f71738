"""What runs the cells: threads of this process or Dask's workers, and the service that runs hosted jobs."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from scaling.command.options import Options
from scaling.planning.optimizers import hosted_names, is_hosted
from scaling.run.runner import run_cells
from scaling.run.task import CellTask
from scaling.types import TASK_APP_PORT, HostedSettings, PlannedCell, UsageError

HOSTED = " or ".join(hosted_names())  # as messages name them


def engine_of(options: Options) -> Callable[..., Any]:
    """The function that runs the cells together, as `run_cells`. UsageError where Dask is not installed."""
    if options.engine == "local":
        return run_cells
    try:
        from scaling.distributed import engine
    except ImportError as error:
        raise UsageError(
            f"--engine dask cannot be used here ({error}). Type: pip install 'dask[distributed]', or --engine local."
        ) from None
    workers = options.workers or os.cpu_count() or 1
    return functools.partial(engine.run_cells, scheduler=options.scheduler, workers=workers)


def hosted_of(
    cells: Sequence[PlannedCell], mode: str, rollouts: int | None, options: Options
) -> tuple[HostedSettings | None, str | None]:
    """Where the cells' hosted jobs go (None without such cells), and why they cannot run here (None: they can).

    mode, rollouts: the study's for hosted jobs. Raises UsageError for flags of hosted jobs without one, and for a
    sweep of nothing else that cannot run.
    """
    if not any(is_hosted(cell.optimizer) for cell in cells):
        _refuse_flags(mode, rollouts, options)
        return None, None
    if options.engine == "dask":
        raise UsageError(f"{HOSTED} runs its task app in this process. Type --engine local, or leave it out.")
    try:
        from scaling.hosted import app, settings  # noqa: F401  (app: FastAPI, which nothing else here needs)
    except ImportError as error:
        raise UsageError(f"{HOSTED} needs {error.name}. Type: pip install -r requirements.txt") from None
    if options.task_app_port and not options.task_app_url:
        raise UsageError("--task-app-port says where --task-app-url leads to. Give both, or neither.")
    port, backend = options.task_app_port or TASK_APP_PORT, settings.backend_of(options.local)
    hosted = HostedSettings(backend, options.task_app_url, port, timeout=options.timeout)
    if options.job_timeout is not None:
        hosted = replace(hosted, job_timeout=options.job_timeout)
    lacks = None if options.dry_run else settings.missing(hosted)
    if lacks and all(is_hosted(cell.optimizer) for cell in cells):
        raise UsageError(lacks)
    return hosted, lacks


def check_hosted(hosted: HostedSettings | None, waiting: Sequence[CellTask], options: Options) -> None:
    """Raise UsageError for what would stop the hosted cells that are to run: backend, key, tunnel, models."""
    tasks = [task for task in waiting if is_hosted(task.cell.optimizer)]
    if tasks and hosted is not None and not options.dry_run:
        from scaling.hosted import client

        models = {model.id: model for task in tasks for model in (task.model, task.optimizer_model)}
        client.check(hosted, list(models.values()), tasks[0].cell.synth_mode)


def _refuse_flags(mode: str, rollouts: int | None, options: Options) -> None:
    """Raise UsageError for the first flag that is for hosted jobs."""
    values = {
        "--mode": mode != "offline", "--rollouts": rollouts, "--local": options.local,
        "--task-app-url": options.task_app_url, "--task-app-port": options.task_app_port,
        "--job-timeout": options.job_timeout,
    }  # fmt: skip
    given = [flag for flag, value in values.items() if value]
    if given:
        raise UsageError(f"{given[0]} is for {HOSTED}, which is not among the optimizers. Leave {given[0]} out.")
