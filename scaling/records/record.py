"""What a cell leaves on disk, as types: its record, learning curve, prediction lines and call lines.

The types are the schema: `scaling.records.codec` reads and writes files by them, and `json_schema` exports them
(`python -m scaling.records.record > docs/record.schema.json`). A field that a file lacks reads as
its default, which is null where nothing is known; a field that a type does not name is ignored; a wrong type or a
number out of bounds is one clear line. Scores are fractions from 0 to 1, costs are US dollars, times are seconds.
"""

from __future__ import annotations

import inspect
import json
import sys
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from scaling.records.programs import CellId, ProgramDigest, ProgramSource
from scaling.sequential import SequentialDesign
from scaling.types import Cell

# cached_tokens are part of prompt_tokens, reasoning_tokens of completion_tokens.
TOKEN_KINDS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
MOST = 10**12  # of any number of a cell

Score = Annotated[float, Meta(ge=0, le=1, description="a fraction from 0 to 1")]
Change = Annotated[float, Meta(ge=-1, le=1, description="a difference of two fractions")]
Count = Annotated[int, Meta(ge=0, le=10**15)]
Number = Annotated[float, Meta(ge=-1e15, le=1e15)]
Dollars = Annotated[float, Meta(ge=0, le=1e15, description="US dollars")]
Seconds = Annotated[float, Meta(ge=0, le=1e15)]
Interval = tuple[Change, Change]
Status = Literal["ok", "error", "invalid", "skipped", "budget", "interrupted"]


class Usage(Struct):
    """Sums over the calls of one phase. A sum is null once a call whose share is not known is in it."""

    calls: Count = 0
    cache_hits: Count = 0
    failed_calls: Count = 0
    prompt_tokens: Count | None = 0
    completion_tokens: Count | None = 0
    list_cost_usd: Dollars | None = 0.0
    billed_cost_usd: Dollars | None = 0.0
    reasoning_tokens: Count | None = None  # a part of completion_tokens; null where no call says how many


class PhaseUsage(Struct):
    """Usage by phase: optimize (all calls until the program is chosen) and evaluate (scoring it)."""

    optimize: Usage | None = None
    evaluate: Usage | None = None


class Proposals(Struct):
    """Proposals of an optimizer: tried, without a usable answer, and accepted."""

    tried: Count | None = None
    unparsed: Count | None = None
    accepted: Count | None = None


class TurnSummary(Struct):
    """Mean score of each turn, the gain from the first to the last, and the sums that add up to it.

    wrong_to_right minus right_to_wrong is gain times examples; format_repairs is the part of wrong_to_right whose
    first turn had no usable answer.
    """

    scores: list[Score]
    gain: Change
    wrong_to_right: Number
    right_to_wrong: Number
    format_repairs: Number


class ErrorRates(Struct):
    """Shares of test examples lost to the infrastructure, and without a usable answer."""

    infrastructure: Score | None = None
    parse: Score | None = None


class HostedJob(Struct):
    """Facts of a job at a hosted optimizer. best_score is the service's own and may have any scale."""

    mode: str | None = None
    backend: str | None = None
    job_id: str | int | None = None
    job_status: str | None = None
    best_score: Number | None = None
    best_prompt: Any = None
    note: str | None = None
    max_cost_usd: Dollars | None = None
    rollouts_list_cost_usd: Dollars | None = None
    elapsed_seconds: Seconds | None = None


class Environment(Struct):
    """Versions and platform; no host name, no user name, no path."""

    python: str | None = None
    packages: dict[str, str | None] = {}
    git: str | None = None
    platform: str | None = None


class DataFacts(Struct):
    """Where the rows came from, and digests of all rows of the cell and of its test rows."""

    source: str | None = None
    revision: str | None = None
    sha256: str | None = None
    test_sha256: str | None = None
    dropped_near_copies: Count | None = None


class ModelFacts(Struct):
    """What was known of the task model when the cell ran."""

    parameters_billions: Annotated[float, Meta(ge=0, le=1e9)] | None = None
    parameters_status: str | None = None
    price_date: str | None = None
    output_usd_per_million: Dollars | None = None
    context_length: Count | None = None
    price_source: str | None = None
    input_usd_per_million: Dollars | None = None
    cached_input_usd_per_million: Dollars | None = None
    cache_write_usd_per_million: Dollars | None = None
    reasoning_usd_per_million: Dollars | None = None
    parameters_source: str | None = None


class Failure(Struct, omit_defaults=True):
    """Why a cell has no score. The traceback names files without the folders of the machine."""

    kind: str
    message: str
    traceback: str | None = None


class Versioned(Struct):
    """The one field that is looked at first."""

    schema_version: Any = None


class Record(Struct, kw_only=True):
    """results.json: one cell with its outcome. Written last, so that a record means a cell that has ended."""

    schema_version: int
    status: Status
    cell_id: CellId
    cell: Cell
    program: ProgramDigest | None = None  # null in records from before there was one
    # What the cell was given: its baseline, or with the optimizer `transfer` its final program. Null without one.
    start: ProgramSource | None = None
    task_class: str | None = None
    split: str | None = None
    n: Count | None = None
    level: str | None = "this program"
    sample: bool | None = None
    note: str | None = None
    unchanged: bool | None = None
    prediction_lines: dict[str, Count] | None = None  # of predictions.jsonl, by program
    proposals: Proposals | None = None
    baseline_score: Score | None = None
    final_score: Score | None = None
    improvement: Change | None = None
    baseline_ci95: Interval | None = None
    final_ci95: Interval | None = None
    improvement_ci95: Interval | None = None
    at_equal_calls_score: Score | None = None
    check_score: Score | None = None
    check_n: Count | None = None
    turns: TurnSummary | None = None
    failure_kinds: dict[str, dict[str, Count]] | None = None
    extra_scores: dict[str, dict[str, Score | None]] | None = None
    val_baseline_score: Score | None = None
    val_final_score: Score | None = None
    rollouts_used: Count | None = None
    stopped_when_flat: bool | None = None  # whether the cell's rule ended its optimizer; null without a rule
    hosted: HostedJob | None = None
    optimize_seconds: Seconds | None = None
    lm_calls_per_example: Annotated[float, Meta(ge=0, le=1e9)] | None = None
    usage: PhaseUsage | None = None
    proposal_usage: Usage | None = None
    error_rates: ErrorRates | None = None
    elapsed_seconds: Seconds | None = None
    environment: Environment | None = None
    data: DataFacts | None = None
    model: ModelFacts | None = None
    error: Failure | None = None

    def __post_init__(self) -> None:
        """Raises ValueError, which reading turns into a RecordError, for numbers of the cell that none can have."""
        for name, value in vars(self.cell).items():
            lowest = {"seed": -MOST, "steps": 1, "select_size": 1}.get(name, 0)
            if isinstance(value, int | float) and not lowest <= value <= MOST:
                raise ValueError(f"cell.{name} is {value}, outside {lowest} to {MOST}")
        if self.cell.select_size > self.cell.val_size:
            raise ValueError(f"cell.select_size is {self.cell.select_size}, more than cell.val_size")


class PredictionLine(Struct, kw_only=True, gc=False):
    """One line of predictions.jsonl: one example under one program.

    A score is null only where the infrastructure failed; an answer without a usable form scores 0 with its kind in
    `error`. turn_scores has the score of each turn or draw. `group` (default: the id) is what intervals resample.
    categories: what the row says of its subtask, level, domain or difficulty.
    Tokens and dollars are sums over the example's calls, null where a call does not say; `tokens` counts what is said.
    """

    program: str
    id: str | int
    group: str | int | None = None
    categories: dict[str, str] | None = None
    draw: Count = 0
    gold: Any = None
    prediction: Any = None
    score: Score | None = None
    extra_scores: dict[str, Score | None] | None = None
    turn_scores: list[Score] | None = None
    first_turn_failed: bool = False
    notes: dict[str, Any] | None = None
    tool_calls: Any = None
    calls: Count | None = None
    tokens: Count | None = None
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    cached_tokens: Count | None = None
    reasoning_tokens: Count | None = None
    list_cost_usd: Dollars | None = None
    latency_seconds: Seconds | None = None
    error: str | None = None
    failure_kind: str | None = None


class Answer(Struct, kw_only=True):
    """The answer to one LM call: what the cache keeps of it, and how it came (attempts, cache_hit, rate_limits).

    cached_tokens and cache_write_tokens (read from and written into the provider's cache) are parts of prompt_tokens,
    reasoning_tokens of completion_tokens. billed_cost_usd: what it was billed where that is not its list cost, as in a
    batch. rate_limits: headers, not stored.
    """

    outputs: list[Any]
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    cached_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    reasoning_tokens: Count | None = None
    list_cost_usd: Dollars | None = None
    latency_seconds: Seconds | None = None
    attempts: Count | None = None
    cache_hit: bool = False
    billed_cost_usd: Dollars | None = None
    rate_limits: dict[str, str] = {}


class CallRecord(Struct, kw_only=True):
    """One line of calls.jsonl: one LM call. It holds no prompt and no key.

    cached_tokens and cache_write_tokens (read from and written into the provider's cache) are parts of prompt_tokens,
    reasoning_tokens of completion_tokens.
    """

    phase: str
    role: str
    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    cached_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    reasoning_tokens: Count | None = None
    list_cost_usd: Dollars | None = None
    billed_cost_usd: Dollars | None = None
    latency_seconds: Seconds | None = None
    attempts: Count | None = None
    cache_hit: bool = False
    error: str | None = None


class CurvePoint(Struct, kw_only=True):
    """One evaluation of a candidate, as it ended: what had been used by then, and its score on `val_n` rows.

    rows: select or train. Only full passes over select move best_val_score. test_score is filled after optimization.
    """

    rollouts: Count
    lm_calls: Count | None = None
    tokens: Count | None = None
    list_cost_usd: Dollars | None = None
    elapsed_seconds: Seconds | None = None
    rows: str | None = None
    val_n: Count | None = None
    candidate_val_score: Score | None = None
    best_val_score: Score | None = None
    test_score: Score | None = None


class LearningCurve(Struct):
    """learning_curve.json: the points of one cell in the order in which they were made."""

    points: list[CurvePoint]
    cell_id: str | None = None


class Instruction(Struct):
    """A role's instruction before and after optimization."""

    before: str
    after: str


class ProgramText(Struct):
    """What is read of program.json: the instructions by role. The rest of that file is DSPy's."""

    instructions: dict[str, Instruction] = {}


class CellClaim(Struct):
    """cell.json: the cell that a folder belongs to, written before anything else."""

    cell_id: CellId
    cell: Cell


class CellPlan(Struct):
    """What a cell was estimated at before it ran, in plan.json: (low, high) of each figure."""

    calls: tuple[Number, Number]
    tokens: tuple[Number, Number]
    cell: Cell
    usd: tuple[Number, Number] | None = None
    chain: tuple[Number, Number] | None = None
    reasoning_tokens: tuple[Number, Number] | None = None


class PlannedAnswer(Struct, kw_only=True):
    """Whether a question of the study could be answered, as it was worked out before the study ran, in plan.json.

    answerable: how many of its contrasts, out of how many, could be judged. smallest_effect: shown with 80 % power, in
    `unit`, the median over contrasts; null where there is none. level: whom the answer speaks of. missing: why the
    other contrasts could not be judged.
    """

    question: str
    answerable: Count = 0
    contrasts: Count = 0
    smallest_effect: Number | None = None
    unit: str = ""
    level: str | None = None
    missing: list[str] = []


class SequentialPlan(Struct, kw_only=True, frozen=True):
    """The rule of a sequential study in plan.json, fixed before its first call. cells: all that it may run, sorted."""

    study: str
    design: SequentialDesign
    cells: list[CellId]


class SweepPlan(Struct, kw_only=True):
    """plan.json, where it holds the cells beside each other by cell_id; the rest is under 'questions', 'sequential'."""

    cells: dict[str, CellPlan] = {}
    questions: list[PlannedAnswer] = []
    sequential: list[SequentialPlan] = []


def json_schema() -> dict[str, Any]:
    """JSON Schema of all files of a cell: the record itself, and the others among the definitions."""
    _, definitions = msgspec.json.schema_components(
        [Record, LearningCurve, PredictionLine, CallRecord], ref_template="#/$defs/{name}"
    )
    for definition in definitions.values():
        if "description" in definition:  # a docstring, whose indentation depends on the version of Python
            definition["description"] = inspect.cleandoc(definition["description"])
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Files of a cell"}
    return head | {"$ref": "#/$defs/Record", "$defs": definitions}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")
