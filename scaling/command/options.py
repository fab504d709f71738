"""The options of a sweep as one typed object, and the command line that sets them.

Flags of a cell's fields come from `scaling.types`, those of a sweep from `Options`. A new field there is a new flag.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pydantic

from scaling.arguments import (
    ArgumentParser,
    auto_or_number,
    check_output_folder,
    name_and_value,
    number,
    whole_number,
)
from scaling.command.transfer import transfer_study
from scaling.export.targets import TARGETS, check_installed, tracker_names
from scaling.llm.gateway import Gateway
from scaling.pipelines import PIPELINES
from scaling.planning.budgets import budget_of_trials
from scaling.planning.optimizers import OPTIMIZERS, options_in_words
from scaling.planning.plan import Benchmarks, sizes_of
from scaling.planning.study import SIZE_FIELDS, Study, load_study, narrow, pilot_of, study_names
from scaling.schema import Address, validated_flags
from scaling.types import CellAxes, CellSettings, CellSizes, UsageError, unknown_name

MOST_TRIALS = 10_000

Seconds = Annotated[float, pydantic.Field(ge=0.1, le=10**7, allow_inf_nan=False)]


def _option(
    default: Any,
    help: str,
    metavar: str | None = None,
    flags: tuple[str, ...] = (),
    read: Callable[[str], Any] | None = None,
) -> Any:
    return field(default=default, metadata={"help": help, "metavar": metavar, "flags": flags, "read": read})


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a sweep is run: what changes no answer. Each field is a flag of the same name; its help is the document."""

    output_dir: Path = _option(Path("results"), "where results are written (results)", "DIR")
    models_file: Path | None = _option(None, "more models, in the format of models.toml", "FILE.toml")
    models_dir: Path | None = _option(None, "where the files of local models are, before the hub's cache", "DIR")
    api_base: Address | None = _option(None, "an OpenAI-compatible server, with --models openai/NAME", "URL")
    max_cost: Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)] | None = _option(
        None, "the most that the sweep may cost", "USD"
    )
    max_concurrency: Annotated[int, pydantic.Field(strict=True, ge=1, le=100_000)] | Literal["auto"] | None = _option(
        None, "most calls in flight to one provider, or auto: as many as it takes (auto for hosted models)", "N|auto",
        read=auto_or_number,
    )  # fmt: skip
    batch: Literal["evaluate"] | None = _option(
        None, "evaluate: score by the providers' batch APIs, at half the price and within a day a round", "PHASE"
    )
    max_error_rate: Annotated[float, pydantic.Field(ge=0, le=1, allow_inf_nan=False)] = _option(
        0.02, "share of lost calls above which a cell is invalid (0.02)", "RATE"
    )
    timeout: Seconds = _option(120.0, "seconds for one request, to its last byte (120)", "SECONDS")
    local: bool = _option(False, "Synth's backend on this machine, port 8000")
    task_app_url: Address | None = _option(None, "where Synth reaches the task app, in place of a tunnel", "URL")
    task_app_port: Annotated[int, pydantic.Field(strict=True, ge=1, le=65535)] | None = _option(
        None, "the port here that --task-app-url leads to (8015)", "N"
    )
    job_timeout: Seconds | None = _option(None, "seconds for a hosted job (3600)", "SECONDS")
    engine: Literal["local", "dask"] = _option("local", "threads of this process, or Dask's workers")
    workers: Annotated[int, pydantic.Field(strict=True, ge=1, le=10_000)] | None = _option(
        None, "worker processes here (--engine dask; one per core)", "N"
    )
    scheduler: Annotated[str, pydantic.Field(min_length=1)] | None = _option(
        None, "a Dask cluster that is already running (--engine dask)", "ADDRESS"
    )
    track: str | None = _option(None, f"tell a tracker of each cell that ends: {' or '.join(tracker_names())}", "NAME")
    many_cells: bool = _option(False, "run the sweep although it has more than 100,000 cells")
    skip_missing_keys: bool = _option(False, "run what can run, and skip the cells whose models lack a key")
    equal_calls: bool = _option(
        False, "score the best candidate at budget / steps in each cell, also where no question reads it"
    )
    dry_run: bool = _option(False, "print the plan with its cost, and stop", flags=("--dry-run", "--estimate-cost"))
    retry_failed: bool = _option(False, "run failed and invalid cells again")
    fresh: bool = _option(False, "run settled cells again, and take no answer from the cache")


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who runs a sweep: the command, or a program that uses the library."""

    # The process is ours: a live table is drawn, and what libraries print and log goes into sweep.log.
    owns_process: bool = False
    one_folder: bool = False  # the one cell's files go straight into output_dir
    on_start: Callable[[Gateway], object] = lambda gateway: None


LIBRARY = Caller()


@dataclass(frozen=True)
class Command:
    """A command line, read: the study and the user's choices in it, the options of the sweep.

    transfer_from: where the programs are that run on other models, in place of a study.
    """

    study: str | None
    choices: dict[str, Any]
    options: Options
    check: bool
    transfer_from: list[Path] | None = None


def checked_options(options: Options) -> Options:
    """The options in their types; UsageError for a value that is not possible, or two that exclude each other."""
    options = validated_flags(Options, vars(options), {f.name: _flags(f)[0] for f in fields(Options)})
    check_output_folder(options.output_dir)
    if options.batch and options.engine == "dask":
        raise UsageError("--batch sends its batches from this process. Type --engine local, or leave it out.")
    if options.track is not None:
        if options.track not in tracker_names():
            raise unknown_name("tracker", options.track, tracker_names(), "Type --track mlflow, for example.")
        check_installed(TARGETS[options.track], "--track")
    if options.engine == "local" and (options.workers, options.scheduler) != (None, None):
        raise UsageError("--workers and --scheduler are Dask's. Type --engine dask with them, or leave them out.")
    if options.workers is not None and options.scheduler is not None:
        raise UsageError(
            "--workers starts processes here, --scheduler uses a cluster that is already running. Give one of them."
        )
    return options


def study_of(command: Command, benchmarks: Benchmarks) -> Study:
    """The study with the user's choices; UsageError for what cannot be. benchmarks: those that are known, by name."""
    if command.transfer_from:
        return _transfers_of(command, command.transfer_from)
    study, choices = load_study(command.study or "pipeline"), dict(command.choices)
    if choices.get("pilot") and choices.get("headroom"):
        raise UsageError("--pilot and --pilot-headroom are two trials. Give one of them.")
    if choices.get("pilot"):
        study = pilot_of(study)
    trials = choices.pop("trials", None)
    if trials is not None:
        if choices.get("rollout_budget") is not None:
            raise UsageError("--trials and --rollout-budget both set the budget. Give one of them.")
        if trials > MOST_TRIALS:
            raise UsageError(f"--trials {trials} is not possible: give {MOST_TRIALS} or less.")
        narrowed = narrow(study, **choices)
        configs = [benchmarks[name] for name in narrowed.benchmarks if name in benchmarks]
        val_sizes = [sizes_of(narrowed, config)["val_size"] for config in configs]
        choices["rollout_budget"] = budget_of_trials(trials, max(val_sizes, default=CellSizes.val_size))
    exact = frozenset(name for name in SIZE_FIELDS if choices.get(name) is not None)
    return narrow(study, **choices, exact_sizes=exact)


def _transfers_of(command: Command, folders: list[Path]) -> Study:
    """The study of --transfer-from; a --study beside it names the models."""
    choices, options = dict(command.choices), command.options
    if command.study is not None and not choices.get("models"):
        choices["models"] = load_study(command.study).models
    return transfer_study(folders, choices, options.models_file, options.api_base)


def parse(argv: Sequence[str] | None, doc: str | None, benchmarks: Sequence[str]) -> Command:
    """Read the command line; the first line of `doc` describes it.

    Ends the process, with one line and exit code 2, for a flag that is not there.
    """
    parser = ArgumentParser(doc)
    what = parser.add_argument_group("what to run")
    what.add_argument(
        "--study", "--config", metavar="NAME|FILE.toml",
        help=f"one of: {', '.join(study_names())}; or a file (pipeline)",
    )  # fmt: skip
    what.add_argument(
        "--transfer-from", nargs="+", type=Path, metavar="DIR",
        help="in place of a study: run the optimized programs of these results, or cells, on the --models",
    )  # fmt: skip
    what.add_argument("--phase", metavar="1|2|3|all", help="which phase of the study (default: its first)")
    what.add_argument("--quick", action="store_const", const="quick", dest="study", help="the demo: --study quick")
    _add_axes(parser.add_argument_group("narrow or override the study"), benchmarks)
    where = parser.add_argument_group("how to run it")
    hints = get_type_hints(Options)
    for option in fields(Options):
        _add(where, option, hints[option.name], dest=option.name, default=option.default)
    where.add_argument("--check", action="store_true", help="ask each model one small question, and stop")
    given = vars(parser.parse_args(argv))
    options = Options(**{f.name: given.pop(f.name) for f in fields(Options)})
    return Command(given.pop("study"), given, options, given.pop("check"), given.pop("transfer_from"))


def _add_axes(group: argparse._ArgumentGroup, benchmarks: Sequence[str]) -> None:
    """The flags that narrow or override a study; None where they are not given."""
    names = {"benchmark": [*benchmarks, "FILE.csv"], "pipeline": PIPELINES, "optimizer": OPTIMIZERS}
    hints = get_type_hints(CellAxes) | get_type_hints(CellSizes) | get_type_hints(CellSettings)
    for axis in fields(CellAxes):
        if axis.metadata.get("flags"):
            listed = ", ".join(names.get(axis.name, ()))
            _add(group, axis, hints[axis.name], dest=axis.metadata["axis"], nargs="+", default=None, listed=listed)
    group.add_argument(
        "--optimizer-model",
        metavar="NAME",
        help="the model that reflects and proposes (default: the study's, else the model itself)",
    )
    group.add_argument("--runs", type=whole_number, metavar="N", help="independent repeats")
    of_study = get_type_hints(Study)
    for choice in fields(Study):
        if choice.name in ("design", "gate"):
            _add(group, choice, of_study[choice.name], dest=choice.name, default=None)
    for setting in (*fields(CellSizes), *fields(CellSettings)):
        if setting.metadata.get("flags"):
            listed = options_in_words() if setting.name == "optimizer_options" else ""
            _add(group, setting, hints[setting.name], dest=setting.name, default=None, listed=listed)
    group.add_argument(
        "--trials", type=whole_number, metavar="N", help="the budget as trials of MIPROv2, for all optimizers"
    )


def _add(group: argparse._ArgumentGroup, of: Field[Any], hint: Any, listed: str = "", **settings: Any) -> None:
    """Add the flag of a dataclass field: its names, its help, and how its text is read."""
    kind = next(part for part in get_args(hint) or (hint,) if part is not NoneType)
    help_text = of.metadata.get("help") or listed or None
    if kind is bool:
        group.add_argument(*_flags(of), action="store_true", help=help_text, **settings)
    elif get_origin(hint) is dict:
        metavar = of.metadata.get("metavar")
        group.add_argument(*_flags(of), nargs="+", action=_Pairs, type=name_and_value, metavar=metavar, help=help_text,
                           **settings)  # fmt: skip
    elif get_origin(hint) is tuple:
        group.add_argument(*_flags(of), nargs="+", metavar=of.metadata.get("metavar"), help=help_text, **settings)
    elif get_origin(hint) is Literal:
        group.add_argument(*_flags(of), choices=get_args(hint), help=help_text, **settings)
    else:
        read = str if get_origin(kind) is Literal else {int: whole_number, float: number}.get(kind, kind)
        read = of.metadata.get("read") or read
        group.add_argument(*_flags(of), type=read, metavar=of.metadata.get("metavar"), help=help_text, **settings)


class _Pairs(argparse.Action):
    """Collects the names and values of a flag that may be given several times."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        setattr(namespace, self.dest, (getattr(namespace, self.dest) or {}) | dict(values))


def _flags(of: Field[Any]) -> tuple[str, ...]:
    return of.metadata.get("flags") or ("--" + of.name.replace("_", "-"),)
