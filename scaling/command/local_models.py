"""The local models of a sweep: found, fetched, checked, and served in turns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from scaling.command.options import Options
from scaling.llm import local_server
from scaling.llm.weights import files_in_memory
from scaling.models import Model
from scaling.run.estimate import Estimate
from scaling.run.task import CellTask
from scaling.types import PlannedCell, UsageError

Addresses = Mapping[str, str]  # model id -> base URL of its server


def local_of(cell: PlannedCell, models: Mapping[str, Model]) -> frozenset[str]:
    """The ids of the local models that a cell calls."""
    return frozenset(name for name in (cell.model, cell.optimizer_model) if models[name].is_local)


def check_local_models(cells: Iterable[PlannedCell], models: Mapping[str, Model], options: Options) -> None:
    """Raise UsageError for a local model whose file is here and cannot be served, or that does not fit into memory."""
    groups = dict.fromkeys(local_of(cell, models) for cell in cells)
    if options.engine == "dask" and len(frozenset().union(*groups)) > 1:
        raise UsageError("--engine dask serves one local model. Type --engine local: several take turns in memory.")
    for group in groups:
        files_in_memory(models[name] for name in group if not _must_be_fetched(models[name]))


def fetch_lines(models: Iterable[Model]) -> list[str]:
    """What the plan says of the files that are fetched before the first call."""
    lines = []
    for model in filter(_must_be_fetched, models):
        weights = model.weights
        assert weights is not None
        size = f"about {weights.size_bytes / 1e6:,.0f} MB" if weights.size_bytes else "size not known"
        licence = f", licence {weights.license}" if weights.license else ""
        lines.append(
            f"{model.id} is not on this machine: {weights.file} ({size}{licence}) will be fetched from "
            f"{weights.repository} into the Hugging Face cache"
        )
    return lines


def turns(tasks: Sequence[CellTask], models: Mapping[str, Model]) -> list[list[CellTask]]:
    """The tasks in groups that run one after the other, so that no more models are in memory than a cell calls.

    Cells without a local model run beside the first group. The order within a group, and of the groups' first cells,
    is that of the tasks.
    """
    groups: dict[frozenset[str], list[CellTask]] = {}
    remote: list[CellTask] = []
    for task in tasks:
        needed = local_of(task.cell, models)
        (groups.setdefault(needed, []) if needed else remote).append(task)
    together = list(groups.values()) or [[]]
    return [remote + together[0], *together[1:]]


def models_here(tasks: Sequence[CellTask], models: Mapping[str, Model], options: Options) -> list[Model]:
    """The local models of these tasks that this process serves: a worker of Dask finds them on its own host."""
    if options.engine == "dask":
        return []
    return [models[name] for name in sorted(frozenset().union(*(local_of(task.cell, models) for task in tasks)))]


@contextmanager
def serving(models: Iterable[Model]) -> Iterator[Addresses]:
    """The servers of the local models among these whose files are here, while the block runs."""
    files = files_in_memory(model for model in models if model.is_local and not _must_be_fetched(model))
    with ExitStack() as stack:
        yield {name: stack.enter_context(local_server.serve(file)) for name, file in files.items()}


def at_address(model: Model, addresses: Addresses) -> Model:
    """The model, with the address it is served at now if it is a local one."""
    return replace(model, api_base=addresses[model.id]) if model.id in addresses else model


def task_at_address(task: CellTask, addresses: Addresses) -> CellTask:
    """The task with its local models at the addresses they are served at now."""
    return replace(
        task, model=at_address(task.model, addresses), optimizer_model=at_address(task.optimizer_model, addresses)
    )


def time_lines(tasks: Sequence[CellTask], estimates: Mapping[str, Estimate], addresses: Addresses) -> list[str]:
    """How long the cells of each local model will take, by the speed that it has now."""
    lines = []
    for name, address in addresses.items():
        mine = [estimates[task.cell.cell_id] for task in tasks if task.cell.model == name]
        if not mine:
            continue
        speed = local_server.measured_speed(address)
        parts = [part for estimate in mine for part in estimate.likely.values()]
        calls, written = sum(part.calls for part in parts), sum(part.output_tokens for part in parts)
        read = sum(sum(estimate.tokens) / 2 for estimate in mine) - written
        minutes = (written / speed.writing + max(read, 0.0) / speed.reading) / 60
        lines.append(
            f"{name} reads {speed.reading:.0f} and writes {speed.writing:.0f} tokens a second here: about "
            f"{minutes:,.0f} min for about {calls:,.0f} calls, less where prompts begin alike"
        )
    return lines


def _must_be_fetched(model: Model) -> bool:
    return model.weights is not None and model.weights.path is None
