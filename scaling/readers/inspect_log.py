"""inspect_ai's logs: `.eval`, which is a zip of JSON files, and `.json`. The fields are those of its EvalLog.

Its own reader reads them where inspect_ai is installed. Else the zip is opened here: `header.json`, or the journal's
`start.json` of an evaluation that has not ended, and a file for each sample. A result is one model on one dataset by
one scorer; epochs are its runs, and they are draws of one program.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from scaling.readers.files import Source, object_of, read_object
from scaling.readers.rows import Format, Result, Row, text_of
from scaling.types import UsageError, digest

LOG = {"eval", "status"}
NUMBERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
ATTACHED = "attachment://"  # long texts stand once in a sample, and elsewhere by this name
ENDED = "success"
SIMULATED = "mockllm/"


class Usage(msgspec.Struct):
    """What a sample's calls to one model took."""

    total_cost: float | None = None


class Score(msgspec.Struct):
    """What one scorer said: a number, a letter, or several by name."""

    value: Any = None


class Sample(msgspec.Struct):
    """One row in one epoch."""

    id: int | str
    epoch: int = 1
    input: Any = None
    scores: dict[str, Score] | None = None
    metadata: dict[str, Any] = {}
    model_usage: dict[str, Usage] = {}
    attachments: dict[str, str] = {}


class Dataset(msgspec.Struct):
    """Where the rows are from."""

    name: str | None = None


class Config(msgspec.Struct):
    """How the evaluation was called."""

    limit: Any = None


class Step(msgspec.Struct):
    """A part of the program that answered."""

    solver: str
    params: dict[str, Any] = {}


class Plan(msgspec.Struct):
    """The program that answered."""

    name: str = ""
    steps: list[Step] = []


class Spec(msgspec.Struct):
    """What was evaluated."""

    task: str
    model: str
    task_args: dict[str, Any] = {}
    model_args: dict[str, Any] = {}
    model_generate_config: dict[str, Any] = {}
    dataset: Dataset = msgspec.field(default_factory=Dataset)
    task_version: int | str = 0
    config: Config = msgspec.field(default_factory=Config)


class Log(msgspec.Struct):
    """A log, with its samples where they are in the same file."""

    eval: Spec
    plan: Plan = msgspec.field(default_factory=Plan)
    status: str = "started"
    invalidated: bool = False
    samples: list[Sample] | None = None


def recognizes(source: Source) -> bool:
    """Whether the file is a log; a folder, when it holds one."""
    if not source.suffix:
        return bool(source.files("*.eval")) or any(Source(path).keys >= LOG for path in source.files("*.json")[:1])
    return source.suffix == ".eval" or (source.suffix == ".json" and source.keys >= LOG)


def read(source: Source, group_field: str) -> list[Result]:
    """A result for each model, dataset and scorer; several logs of one model are its runs."""
    if source.suffix:
        return _results(source.path, read_log(source.path), group_field)
    paths = [path for path in source.files("*.eval", "*.json") if path.suffix == ".eval" or Source(path).keys >= LOG]
    logs = [(path, read_log(path)) for path in paths]
    ended = [(path, log) for path, log in logs if log.status == ENDED]
    return [result for path, log in ended or logs for result in _results(path, log, group_field)]


def read_log(path: Path) -> Log:
    """One log with its samples, by inspect_ai's reader where it is installed. Raises UsageError."""
    if find_spec("inspect_ai") is not None:
        return _by_inspect(path)
    return read_object(path, Log) if path.suffix == ".json" else _unzipped(path)


def _by_inspect(path: Path) -> Log:
    from inspect_ai.log import read_eval_log

    try:
        log = read_eval_log(str(path), resolve_attachments=True)
    except Exception as error:  # of whatever kind: the file is not what its reader takes
        raise UsageError(f"{path} cannot be read by inspect_ai: {' '.join(str(error).split())[:200]}.") from None
    shown = {
        "eval": True,
        "plan": True,
        "status": True,
        "invalidated": True,
        "samples": {"__all__": set(Sample.__struct_fields__)},
    }
    return object_of(log.model_dump_json(include=shown).encode(), Log, path)


def _unzipped(path: Path) -> Log:
    """A log from the zip itself. Newer ones are packed with zstd, which Python can read from 3.14 on."""
    if sys.version_info >= (3, 14):
        import zipfile
    else:
        from backports.zstd import zipfile

    try:
        with zipfile.ZipFile(path) as packed:
            names = packed.namelist()
            head = "header.json" if "header.json" in names else "_journal/start.json"
            log = object_of(packed.read(head), Log, path)
            samples = [name for name in names if name.startswith("samples/") and name.endswith(".json")]
            log.samples = [object_of(packed.read(name), Sample, path) for name in samples]
            return log
    except (zipfile.BadZipFile, KeyError) as error:
        raise UsageError(f"{path} is not a log of inspect_ai ({error}).") from None


def _results(path: Path, log: Log, group_field: str) -> list[Result]:
    by_metric: dict[str, list[Row]] = {}
    samples = log.samples or []
    for metric in dict.fromkeys(name for sample in samples for name, _ in _values(sample)):
        by_metric[metric] = [_row(sample, dict(_values(sample)).get(metric), group_field) for sample in samples]
    dataset = log.eval.dataset.name or log.eval.task
    return [
        Result(log.eval.model, str(path), FORMAT.what, tuple(rows), dataset, str(log.eval.task_version), metric,
               settings=_settings(log), notes=_notes(path, log))
        for metric, rows in by_metric.items()
    ]  # fmt: skip


def _settings(log: Log) -> str:
    """What made the answers, beside the model: another solver is another program, and no other run."""
    spec = log.eval
    return digest(
        [spec.task, spec.task_args, spec.model_args, spec.model_generate_config, msgspec.to_builtins(log.plan)]
    )


def _values(sample: Sample) -> Iterator[tuple[str, float | None]]:
    """The scores of a sample by the name of the scorer; a scorer that gives several has each under 'scorer.name'."""
    for scorer, score in (sample.scores or {}).items():
        if isinstance(score.value, dict):
            yield from ((f"{scorer}.{name}", _number(value)) for name, value in score.value.items())
        elif not isinstance(score.value, list):
            yield scorer, _number(score.value)


def _number(value: object) -> float | None:
    """A score as inspect_ai's own metrics take it; None for a text that is no score, and for NaN, which is unscored."""
    if isinstance(value, str):
        text = value if value in NUMBERS else value.lower()
        try:
            value = NUMBERS[text] if text in NUMBERS else float(text)
        except ValueError:
            return None
    return float(value) if isinstance(value, int | float) and value == value else None


def _row(sample: Sample, score: float | None, group_field: str) -> Row:
    costs = [usage.total_cost for usage in sample.model_usage.values()]
    known = [cost for cost in costs if cost is not None]
    return Row(
        id=str(sample.id), score=score, run=str(sample.epoch), group=text_of(sample.metadata.get(group_field)),
        input=_text(sample), cost=sum(known) if costs and len(known) == len(costs) else None,
    )  # fmt: skip


def _text(sample: Sample) -> str | None:
    """What was asked, as text: of a conversation, all of its messages."""
    if isinstance(sample.input, str) or sample.input is None:
        return sample.input
    parts = []
    for message in sample.input:
        content = message.get("content") if isinstance(message, dict) else None
        content = [{"text": content}] if isinstance(content, str) else content or []
        parts += [str(part.get("text", "")) for part in content if isinstance(part, dict)]
    return "\n".join(sample.attachments.get(part.removeprefix(ATTACHED), part) for part in parts)


def _notes(path: Path, log: Log) -> tuple[str, ...]:
    notes = []
    if log.eval.model.startswith(SIMULATED):
        notes.append(f"Simulated: {path.name} is of inspect's mock model, whose answers were made up.")
    if log.status != ENDED:
        notes.append(f"Interim: the evaluation of {path.name} has not ended well (status: {log.status}).")
    if log.invalidated:
        notes.append(f"{path.name} was marked as invalid by those who made it.")
    if log.eval.config.limit is not None:
        notes.append(f"A sample: {path.name} has some of the rows only (limit {log.eval.config.limit}).")
    return tuple(notes)


FORMAT = Format("inspect_ai's .eval and .json logs", recognizes, read)
