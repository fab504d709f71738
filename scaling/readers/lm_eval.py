"""lm-evaluation-harness (`lm_eval run --log_samples --output_path ...`): results_*.json with samples_*.jsonl beside.

A result is one model on one task by one metric and filter, named as in the results file: 'exact_match,strict-match'.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from scaling.readers.files import Source, read_lines, read_object
from scaling.readers.rows import Format, Result, Row, last_message, text_of
from scaling.types import UsageError, digest

RESULTS = {"results", "configs", "versions"}
SAMPLE = {"doc_id", "doc", "filter"}
DATE = r"\d{4}-\d\d-\d\dT[\d.-]+"
NO_FILTER = "none"
SIMULATED = ("dummy",)  # a model that answers at random


class Config(msgspec.Struct):
    """How the harness was called."""

    model: str | None = None
    model_args: Any = None
    gen_kwargs: Any = None
    limit: float | None = None


class Results(msgspec.Struct):
    """results_*.json."""

    versions: dict[str, Any] = {}
    higher_is_better: dict[str, dict[str, bool | None]] = {}
    config: Config = msgspec.field(default_factory=Config)
    n_shot: dict[str, Any] = msgspec.field(default_factory=dict, name="n-shot")
    chat_template_sha: str | None = None
    system_instruction_sha: str | None = None
    model_name: str | None = None


class Sample(msgspec.Struct):
    """What every line of samples_*.jsonl has; its scores stand beside, under the names in `metrics`."""

    doc_id: int | str
    doc: Any
    filter: str = NO_FILTER
    metrics: list[str] = []
    arguments: Any = None


def recognizes(source: Source) -> bool:
    """Whether the file, or a file in the folder, is of the harness."""
    if source.suffix == ".json":
        return source.keys >= RESULTS
    if source.suffix == ".jsonl":
        return source.keys >= SAMPLE
    return bool(source.files("samples_*.jsonl"))


def read(source: Source, group_field: str) -> list[Result]:
    """A result for each model, task, metric and filter."""
    found = [
        result
        for path in _sample_files(source)
        for result in _of_task(path, _results_of(path), group_field)
    ]  # fmt: skip
    if not found:
        raise UsageError(f"{source.path} has no rows. Type --log_samples when you run lm_eval.")
    return found


def _sample_files(source: Source) -> list[Path]:
    if source.suffix == ".jsonl":
        return [source.path]
    if source.suffix == ".json":
        return sorted(source.path.parent.glob(f"samples_*_{_date(source.path)}.jsonl"))
    return source.files("samples_*.jsonl")


def _results_of(samples: Path) -> Results:
    """The results file of the same command; an empty one where it is not there."""
    for path in sorted(samples.parent.glob(f"*_{_date(samples)}.json")):
        return read_object(path, Results)
    return Results()


def _of_task(path: Path, results: Results, group_field: str) -> list[Result]:
    task = re.sub(f"^samples_|_{DATE}$", "", path.stem)
    by_metric: dict[str, list[Row]] = {}
    for line in read_lines(path, dict[str, Any]):
        for metric, row in _rows(line, path, group_field):
            if results.higher_is_better.get(task, {}).get(metric.partition(",")[0], True):
                by_metric.setdefault(metric, []).append(row)
    version = text_of(results.versions.get(task))
    return [
        Result(_name(results, path), str(path), FORMAT.what, tuple(rows), task, version, metric,
               settings=_settings(results, task), notes=_notes(results, path))
        for metric, rows in by_metric.items()
    ]  # fmt: skip


def _settings(results: Results, task: str) -> str:
    """What made the answers, beside the model."""
    config, prompt = results.config, (results.chat_template_sha, results.system_instruction_sha)
    return digest([config.model_args, config.gen_kwargs, config.limit, results.n_shot.get(task), *prompt])


def _rows(line: dict[str, Any], path: Path, group_field: str) -> Iterator[tuple[str, Row]]:
    """The row of each metric that is a number for a single row."""
    try:
        sample = msgspec.convert(line, Sample)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path} cannot be read: {error}.") from None
    document = msgspec.json.encode(sample.doc, order="deterministic").decode()
    group = text_of(sample.doc.get(group_field)) if isinstance(sample.doc, dict) else None
    for metric in sample.metrics:
        value = line.get(metric)
        if isinstance(value, int | float):
            named = metric if sample.filter == NO_FILTER else f"{metric},{sample.filter}"
            score = float(value) if value == value else None  # NaN
            yield (
                named,
                Row(id=str(sample.doc_id), score=score, group=group, input=_asked(sample), document=document),
            )


def _asked(sample: Sample) -> str | None:
    """The first prompt that was sent: {"gen_args_0": {"arg_0": PROMPT}}, where a conversation is a list with its JSON.

    A row with several prompts, as one for each choice, is known by its document only.
    """
    if not isinstance(sample.arguments, dict) or len(sample.arguments) != 1:
        return None
    (sent,) = sample.arguments.values()
    prompt = sent.get("arg_0") if isinstance(sent, dict) else None
    prompt = prompt[0] if isinstance(prompt, list) and prompt else prompt
    return last_message(prompt) if isinstance(prompt, str) else None


def _name(results: Results, path: Path) -> str:
    arguments = results.config.model_args
    if isinstance(arguments, str):
        arguments = dict(part.split("=", 1) for part in arguments.split(",") if "=" in part)
    named = arguments.get("pretrained") or arguments.get("model") if isinstance(arguments, dict) else None
    return results.model_name or named or results.config.model or path.parent.name


def _notes(results: Results, path: Path) -> tuple[str, ...]:
    notes = []
    if results.config.model in SIMULATED:
        notes.append(f"Simulated: {path.name} is of lm-eval's dummy model, which answers at random.")
    if results.config.limit is not None:
        notes.append(f"A sample: {path.name} has the first {results.config.limit:g} rows only (--limit).")
    return tuple(notes)


def _date(path: Path) -> str:
    found = re.search(f"{DATE}$", path.stem)
    if not found:
        raise UsageError(f"{path} has no date at the end of its name, as lm_eval writes it, so its rows are not found.")
    return found[0]


FORMAT = Format("lm-eval's results_*.json with samples_*.jsonl", recognizes, read)
