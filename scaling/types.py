"""The whole contract in one file: the words that every other module uses.

A *benchmark* (data, signature, metric) x *pipeline* x *steps* x *optimizer* x *model* x *run* is a
*cell*; a cell ends as one *record* (`results.json`). Nothing here imports DSPy.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, get_args

import pydantic

from scaling.pipelines import step_name

SCHEMA_VERSION = 1
# Raised when the meaning of a cell's fields changes, so that old records are not mistaken for new ones.
CELL_VERSION = 1

SYNTH_MODES = ("offline", "online")
# The one model that may be `embedded`: its weights come with the install.
EMBEDDED = "local/smollm2-135m"
TASK_APP_PORT = 8015  # unless somebody says otherwise
STEPS = (1, 2, 3, 4, 5)
# Fields of a row that its prediction line keeps and that scores are broken down by.
BREAKDOWNS = ("subtask", "level", "domain", "difficulty")
FIXED_TEMPERATURE = 1.0  # of a model that takes none: what its provider uses
# Settled cells are not run again by the same command; budget and interrupted go on where they were.
SETTLED = ("ok", "error", "invalid", "skipped")

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_CAP, EXIT_INTERRUPTED = 0, 1, 2, 3, 130

Row = dict[str, Any]
Metric = Callable[..., float]


class UsageError(Exception):
    """Something the user can put right; the message is one line: what is wrong, what is possible, what to type."""


class SweepInterrupted(Exception):
    """What a sweep needs is gone; the same command goes on. The message says what."""


class CellStopped(BaseException):
    """Ends a cell from inside any thread of it.

    A BaseException because optimizers swallow every Exception (an `Exception` raised at the cap left
    GEPA and MIPROv2 running for dozens of calls). Raised by the LM gateway, caught only in `run_cell`.
    """

    def __init__(self, status: Literal["budget", "interrupted", "error"], message: str):
        super().__init__(message)
        self.status = status


def _chosen(default: Any = MISSING, **facts: Any) -> Any:
    """A field of a cell that a user chooses, with what the rest of the program needs to know of it.

    axis: its name in a study, where a study lists several; flags, help, metavar: on the command line. not_in_id: it
    only says where something is; left_out_of_id: it was added later and is not in the id at its default.
    """
    return field(default=default, metadata=facts)


Seed = Annotated[int, pydantic.Field(strict=True, ge=0, le=10**9)]
Size = Annotated[int, pydantic.Field(strict=True, ge=1, le=10**7)]
Count = Annotated[int, pydantic.Field(strict=True, ge=0, le=10**7)]
Temperature = Annotated[float, pydantic.Field(strict=True, ge=0, le=2, allow_inf_nan=False)]
Flag = Annotated[bool, pydantic.Strict()]
Name = Annotated[str, pydantic.Field(strict=True, min_length=1, max_length=4000)]
OptionName = Annotated[str, pydantic.Field(strict=True, max_length=100)]
OptionValue = bool | int | str
Share = Annotated[float, pydantic.Field(strict=True, gt=0, lt=1, allow_inf_nan=False)]
Draws = Annotated[int, pydantic.Field(strict=True, ge=1, le=100)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORTS: tuple[Effort, ...] = get_args(Effort)  # how long a model reasons; each model takes some of them


class CellProgram(Protocol):
    """Which program a cell scores, with which model; the cell is planned or recorded."""

    @property
    def pipeline(self) -> str: ...
    @property
    def steps(self) -> int: ...
    @property
    def optimizer(self) -> str: ...
    @property
    def model(self) -> str: ...


@dataclass(frozen=True)
class CellAxes:
    """What varies inside a study: a study lists several of each. A field here is a field everywhere."""

    benchmark: str = _chosen(axis="benchmarks", flags=("--benchmarks", "--datasets"), metavar="NAME")
    pipeline: str = _chosen(axis="pipelines", flags=("--pipelines",), metavar="NAME")
    steps: int = _chosen(axis="steps", flags=("--steps",), metavar="N", help="LLM calls per row, 1 to 5")
    optimizer: str = _chosen(axis="optimizers", flags=("--optimizers",), metavar="NAME")
    model: str = _chosen(axis="models", flags=("--models", "--model"), metavar="NAME",
                         help="names of LiteLLM's table, ids or aliases of scaling/models.toml, globs over these "
                              "('groq/*'), size:small, size:medium, size:large")  # fmt: skip
    optimizer_model: str = _chosen(axis="optimizer_model")  # the model itself where a study names none
    run: Seed = _chosen(0, axis="run_list")
    max_output_tokens: Size = _chosen(1024, axis=None)  # the model's


@dataclass(frozen=True, kw_only=True)
class CellSizes:
    """Rows of a cell. A study sets them for all of its cells, or leaves them to each benchmark's seeds."""

    train_size: Size = _chosen(50, flags=("--train-size",), metavar="N",
                               help="rows that optimizers learn from (where the study names none: the benchmark's "
                                    "train_seeds)")  # fmt: skip
    val_size: Size = _chosen(100, flags=("--val-size",), metavar="N",
                             help="rows for select and check (the benchmark's val_seeds)")  # fmt: skip
    test_size: Count = _chosen(0, flags=("--test-size",), metavar="N",
                               help="rows of the final score (the benchmark's test_seeds)")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CellSettings:
    """What a study sets once for all of its cells. A field here is a field everywhere."""

    seed: Seed = _chosen(0, flags=("--seed",), metavar="N", help="of the rows and the optimizers (0)")
    temperature: Temperature = _chosen(0.7, flags=("--temperature",), metavar="T", help="of the task model (0.7)")
    rollout_budget: Count = _chosen(200, flags=("--rollout-budget",), metavar="N",
                                   help="rollouts that an optimizer may make in a cell")  # fmt: skip
    data: str = _chosen("hub", flags=("--data",), metavar="hub|sample|DIR",
                        help="Hugging Face hub, shipped samples, or a folder", not_in_id=True)  # fmt: skip
    # Those of the cell's optimizer that differ from its defaults.
    optimizer_options: dict[OptionName, OptionValue] = field(
        default_factory=dict, hash=False,
        metadata={"flags": ("--optimizer-option",), "metavar": "NAME=VALUE", "left_out_of_id": True},
    )  # fmt: skip
    labels: Size | None = _chosen(None, flags=("--labels",), metavar="N", help="only the first N classes")
    feedback: str = _chosen("none", flags=("--feedback",), metavar="NAME",
                            help="what self_correct hears of its answers: none, oracle (cheating), "
                                 "execution")  # fmt: skip
    reasoning_effort: Effort | None = _chosen(None, flags=("--reasoning-effort",), metavar="LEVEL",
                                              help="how long reasoning models think: " + ", ".join(EFFORTS)
                                              + " (their provider's default)", left_out_of_id=True)  # fmt: skip
    # Of the program on test rows; the analysis averages them within the row.
    draws: Draws = _chosen(1, flags=("--draws",), metavar="N", left_out_of_id=True,
                           help="sampled answers of the final program to each test row (1)")  # fmt: skip
    closed_book: Flag = _chosen(False, flags=("--closed-book",), help="ask a benchmark with tools without them",
                                left_out_of_id=True)  # fmt: skip
    pilot: Flag = _chosen(False, flags=("--pilot",), left_out_of_id=True,
                          help="a trial of the whole study: one run, few rows; its scores are not results")  # fmt: skip
    # The score that may improve is the best candidate's on all select rows. None: the optimizer uses its whole budget.
    stop_when_flat: Share | None = _chosen(None, flags=("--stop-when-flat",), metavar="SHARE", left_out_of_id=True,
                                           help="end an optimizer when its best score has not improved over this share "
                                                "of its budget; such cells are of a kind of their own")  # fmt: skip
    headroom: Flag = _chosen(False, flags=("--pilot-headroom",), left_out_of_id=True,
                             help="a cheap trial without an optimizer, on train and check rows: how much can calls, "
                                  "votes and prompts win")  # fmt: skip
    wording: str = _chosen("own", left_out_of_id=True)  # of the instructions; one of scaling.wordings
    # What it says is in the fitted fields.
    start_from: Name | None = _chosen(None, flags=("--start-from",), metavar="PROGRAM.json|FILE.txt",
                                      help="the program that cells start from: a cell's folder, a program.json, or "
                                           "your own instructions in a text file", not_in_id=True)  # fmt: skip
    frozen_roles: tuple[Name, ...] = _chosen((), flags=("--freeze",), metavar="ROLE", left_out_of_id=True,
                                             help="steps whose prompts no optimizer changes")  # fmt: skip
    # Hosted jobs: who runs the rollouts, and how many a candidate gets (None: a pass over select; online at most 10).
    synth_mode: str = _chosen("offline", flags=("--mode",), metavar="offline|online",
                              help="who runs the rollouts of synth_mipro (offline)", left_out_of_id=True)  # fmt: skip
    synth_rollouts: Size | None = _chosen(None, flags=("--rollouts",), metavar="N",
                                          help="rollouts per candidate (synth_mipro)", left_out_of_id=True)  # fmt: skip


@dataclass(frozen=True)
class FittedFields:
    """What only the data can tell of a cell."""

    select_size: int = 50
    # Digest of the rows that this cell's splits hold, and of the benchmark's declared version.
    data_sha256: str = ""
    benchmark_version: str = "1"
    # Of the program that the cell is given: the digest of its prompts, and the cell that it is from ("": a file).
    start_sha256: str = _chosen("", left_out_of_id=True)
    start_cell: str = _chosen("", left_out_of_id=True)


@dataclass(frozen=True)
class PlannedCell(CellSettings, CellSizes, CellAxes):
    """One point of the grid as it was asked for. Its sizes are not yet those of its data, so it has no id."""

    @property
    def label(self) -> str:
        """Short name for people: 'banking77 3step gepa llama-3.1-8b run0'."""
        step = step_name(self.pipeline, self.steps)
        closed = " closed-book" if self.closed_book else ""
        online = " online" if self.synth_mode == "online" else ""
        options = f" ({options_text(self.optimizer_options)})" if self.optimizer_options else ""
        effort = f" effort {self.reasoning_effort}" if self.reasoning_effort else ""
        start = f" from {'/'.join(Path(self.start_from).parts[-3:])}" if self.start_from else ""
        frozen = f" frozen {' '.join(self.frozen_roles)}" if self.frozen_roles else ""
        pilot = " (pilot)" if self.pilot else ""
        draws = f" {self.draws} draws" if self.draws > 1 else ""
        wording = f" wording {self.wording}" if self.wording != "own" else ""
        flat = f" stop-when-flat {self.stop_when_flat:g}" if self.stop_when_flat else ""
        program = f"{step} {self.optimizer}{online}{options}{flat}{frozen}{wording}{draws}"
        return f"{self.benchmark}{closed} {program} {self.model}{effort} run{self.run}{start}{pilot}"


@dataclass(frozen=True)
class Cell(FittedFields, PlannedCell):
    """One point of the grid: plain data, everything that can change the answer and nothing else."""

    @cached_property
    def cell_id(self) -> str:
        """16 hex digits over every field that can change the answer.

        The name of the data source is left out and the digest of its rows is in: the same rows from
        another folder are the same cell. So it is with the file of a program that the cell is given. Fields that were
        added later are left out at their default, so that records from before the field are the cells they were.
        """
        values = asdict(self) | {"cell_version": CELL_VERSION}
        for of in fields(self):
            is_unset = of.metadata.get("left_out_of_id") and values[of.name] == default_of(of)
            if is_unset or of.metadata.get("not_in_id"):
                del values[of.name]
        return digest(values)[:16]


@dataclass(frozen=True, eq=False)
class Benchmark:
    """A benchmark with its rows loaded, ready to be split. Equal to itself only."""

    name: str
    signature: Any  # a dspy.Signature class, labels as a Literal of the labels in the data
    metric: Metric
    feedback: Callable[..., str] | None
    roles: dict[str, str]  # what each role does, in place of the standard words
    version: str
    label_field: str | None
    train: list[Row]  # the pool that train and val are drawn from
    test: list[Row] | None  # official test rows; None where the pool is one
    train_seeds: tuple[int, ...]  # positions in the order of rows; the splits take their rows from them first
    val_seeds: tuple[int, ...]
    test_seeds: tuple[int, ...] | None = None  # None: the final score is on check rows
    source: str = "hub"
    revision: str | None = None
    note: str | None = None  # what every output must say of these rows
    tools: tuple[Any, ...] = ()  # dspy.Tool; () also where a benchmark with tools is asked without them
    task_class: str | None = None
    stratify: str | None = None  # the field whose values every split holds in proportion
    match_fields: tuple[str, ...] = ()  # rows that agree in these are copies; () for the signature's inputs
    mask_digits: bool = False  # rows that differ in their numbers only are copies
    near_copy: float | None = None  # share of words that makes two rows copies
    extra_metrics: Mapping[str, Metric] = field(default_factory=dict)  # scored beside the metric, by name
    failure_kind: Callable[..., str | None] | None = None  # a word for how an answer failed
    execution_feedback: Callable[..., str] | None = None  # what running an answer shows, for self-correction
    needs: Callable[[], None] | None = None  # raises UsageError where the benchmark cannot be run

    @property
    def inputs(self) -> list[str]:
        return list(self.signature.input_fields)

    @property
    def outputs(self) -> list[str]:
        return list(self.signature.output_fields)


@dataclass(frozen=True)
class Splits:
    """The rows of one run: train and select for the optimizer, check for nobody, test opened once."""

    train: list[Row]
    select: list[Row]
    check: list[Row]
    test: list[Row]
    split: str  # "test", or "check" where the benchmark has no test rows
    dropped: int  # rows of the train pool passed over because they (nearly) repeat a test row

    @cached_property
    def sha256(self) -> str:
        return digest({part: getattr(self, part) for part in ("train", "select", "check", "test")})

    @cached_property
    def test_sha256(self) -> str:
        return digest(self.test)


def default_of(of: Field[Any]) -> Any:
    """The default of a dataclass' field, made anew where each object has its own."""
    return of.default if of.default_factory is MISSING else of.default_factory()


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, the same on every machine."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def options_text(options: Mapping[str, OptionValue]) -> str:
    """Options as a user types them: 'num_candidates=12 use_merge=false'."""
    return " ".join(
        f"{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in options.items()
    )


def unknown_name(what: str, name: str, possible: list[str], fix: str) -> UsageError:
    """The one shape of 'unknown name' messages."""
    return UsageError(f"unknown {what} '{name}'{did_you_mean(name, possible)}; possible: {', '.join(possible)}. {fix}")


def did_you_mean(name: str, possible: Sequence[str]) -> str:
    """Return " (did you mean 'x'?)" with the possible name nearest to `name`; nothing where none is near."""
    nearest = difflib.get_close_matches(name, possible, n=1)
    return f" (did you mean '{nearest[0]}'?)" if nearest else ""


@dataclass(frozen=True)
class HostedSettings:
    """Where hosted jobs are sent and how patiently they are followed; no key in it. Times in seconds.

    task_app_url: an address that leads to `task_app_port` here, None where there is none. since: an older job of the
    same cell is not used (seconds since 1970).
    """

    backend: str
    task_app_url: str | None = None
    task_app_port: int = TASK_APP_PORT
    job_timeout: float = 3600.0
    timeout: float = 120.0
    since: float = 0.0
