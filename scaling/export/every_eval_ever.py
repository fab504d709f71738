"""Every Eval Ever, schema 0.3: a JSON file a cell, with its predictions in a JSON Lines file beside it.

The folders are those of its data store, `data/<benchmark>/<developer>/<model>/<uuid>.json`. The format has no place for
an answer without a score, so answers that the network lost are left out and counted.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scaling.export.cells import ExportedCell, Sweep
from scaling.export.files import as_json, check_free, write_new
from scaling.export.tidy import as_text
from scaling.planning.optimizers import NONE
from scaling.records.record import PredictionLine
from scaling.redact import hide_known
from scaling.types import UsageError, options_text

SCHEMA_VERSION = "0.3.0"
NOT_EXPORTED = "(the text of this row is not exported)"
NO_ANSWER = ""
SERVED_HERE = "local/"  # how the ids of models begin whose weights are here


def write(sweep: Sweep, out: Path) -> str:
    """Write two files for each cell with scores; returns what was written. Raises UsageError where there is none."""
    cells = lines = 0
    for cell in sweep.cells:
        if cell.record.status == "ok" and cell.lines:
            lines += _write_cell(cell, out)
            cells += 1
    if not cells:
        raise UsageError(f"no cell of {sweep.name} has a score. Run its cells first.")
    return f"wrote {out / 'data'}: {cells:,} evaluations with {lines:,} instances"


def _write_cell(cell: ExportedCell, out: Path) -> int:
    """Both files of a cell; returns the number of its instances."""
    name = _file_name(cell)
    folder = Path("data", _portable(cell.cell.benchmark), *map(_portable, _model_id(cell).split("/", 1)))
    instances = [_instance(cell, line) for program in cell.programs for line in cell.scored(program)]
    text = "".join(json.dumps(instance, ensure_ascii=False) + "\n" for instance in instances)
    data = hide_known(text).encode()
    samples = folder / f"{name}_samples.jsonl"
    whole = as_json(_evaluation(cell, samples, data, len(instances)))
    check_free(out / folder / f"{name}.json", whole)
    write_new(out / samples, data)
    write_new(out / folder / f"{name}.json", whole)
    return len(instances)


def _evaluation(cell: ExportedCell, samples: Path, data: bytes, count: int) -> dict[str, Any]:
    """The file of a cell as a whole."""
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": _evaluation_id(cell),
        "evaluation_timestamp": cell.ended.isoformat(),
        "retrieved_timestamp": str(int(cell.ended.timestamp())),
        "source_metadata": {
            "source_name": "call-scaling",
            "source_type": "evaluation_run",
            "source_organization_name": "unknown",
            "evaluator_relationship": "third_party",
        },
        "eval_library": {"name": "call-scaling", "version": _version(cell), "additional_details": _versions(cell)},
        "model_info": _model(cell),
        "evaluation_results": [_result(cell, program) for program in cell.programs if cell.scored(program)],
        "detailed_evaluation_results": {
            "format": "jsonl",
            "file_path": samples.as_posix(),
            "hash_algorithm": "sha256",
            "checksum": hashlib.sha256(data).hexdigest(),
            "total_rows": count,
        },
    }


def _result(cell: ExportedCell, program: str) -> dict[str, Any]:
    """The score of one program: the baseline is the same program without an optimizer."""
    record, lines = cell.record, cell.scored(program)
    interval = record.baseline_ci95 if program == "baseline" else record.final_ci95
    score = record.baseline_score if program == "baseline" else record.final_score
    uncertainty: dict[str, Any] = {"num_samples": len({line.id for line in lines})}
    if interval is not None:
        low, high = interval
        uncertainty["confidence_interval"] = {"lower": low, "upper": high, "confidence_level": 0.95}
    return {
        "evaluation_result_id": _result_id(cell, program),
        "evaluation_name": _evaluation_name(cell, program),
        "source_data": _source(cell),
        "metric_config": {
            "metric_id": f"call-scaling.{cell.cell.benchmark}",
            "metric_name": "score",
            "metric_unit": "proportion",
            "lower_is_better": False,
            "score_type": "continuous",
            "min_score": 0,
            "max_score": 1,
        },
        "score_details": {"score": score, "uncertainty": uncertainty, "details": _details(cell, program)},
        "generation_config": _generation(cell, program),
    }


def _details(cell: ExportedCell, program: str) -> dict[str, str]:
    lost = sum(line.program == program and line.score is None for line in cell.lines)
    said = {"split": cell.record.split, "level": cell.record.level, "warning": "; ".join(cell.warnings) or None}
    return _texts({"program": program, "rows_without_score": lost, **said})


def _generation(cell: ExportedCell, program: str) -> dict[str, Any]:
    """How the answers were made: the plan has the program's steps and what optimized it."""
    asked, record = cell.cell, cell.record
    before = program == "baseline"
    steps = [
        json.dumps({"role": role, "instruction": text.before if before else text.after}, ensure_ascii=False)
        for role, text in cell.instructions.instructions.items()
    ]
    config = {
        "optimizer": NONE.name if before else asked.optimizer,
        "optimizer_options": options_text(asked.optimizer_options) or None,
        "optimizer_model": asked.optimizer_model,
        "rollout_budget": 0 if before else asked.rollout_budget,
        "rollouts_used": 0 if before else record.rollouts_used,
        "pipeline": asked.pipeline,
        "steps": asked.steps,
        "train_rows": asked.train_size,
        "select_rows": asked.select_size,
    }
    plan = {"name": f"{asked.pipeline} of {asked.steps}", "steps": steps, "config": _texts(config)}
    sampling = {"temperature": asked.temperature, "max_tokens": asked.max_output_tokens, "eval_plan": plan}
    facts = {
        "cell_id": record.cell_id,
        "run": asked.run,
        "seed": asked.seed,
        "reasoning_effort": asked.reasoning_effort,
        "feedback": asked.feedback,
        "closed_book": asked.closed_book,
        "is_sample": bool(record.sample),
        "is_pilot": cell.is_pilot,
        "cell": json.dumps(asdict(asked), ensure_ascii=False),
    }
    return {"generation_args": sampling, "additional_details": _texts(facts)}


def _source(cell: ExportedCell) -> dict[str, Any]:
    data = cell.record.data
    facts = {"licence": cell.rights.licence}
    if data is not None:
        facts |= {"source": data.source, "revision": data.revision, "sha256": data.sha256}
    return {"dataset_name": cell.cell.benchmark, "source_type": "other", "additional_details": _texts(facts)}


def _instance(cell: ExportedCell, line: PredictionLine) -> dict[str, Any]:
    """One prediction. Its score must be known."""
    row_id, answer = str(line.id), as_text(line.prediction)
    optional: dict[str, Any] = {"token_usage": _tokens(line), "error": line.error}
    if line.latency_seconds is not None:
        optional["performance"] = {"latency_ms": 1000 * line.latency_seconds}
    draw = line.draw if cell.cell.draws > 1 else None
    facts = {
        "program": line.program,
        "draw": draw,
        "group": line.group,
        "failure_kind": line.failure_kind,
        **(line.categories or {}),
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "evaluation_id": _evaluation_id(cell),
        "model_id": _model_id(cell),
        "evaluation_name": _evaluation_name(cell, line.program),
        "evaluation_result_id": _result_id(cell, line.program),
        "sample_id": row_id,
        "interaction_type": "single_turn",
        "input": _input(cell, line),
        "output": {"raw": [] if answer is None else [answer]},
        "answer_attribution": [
            {
                "turn_idx": 0,
                "source": "output.raw",
                "extracted_value": NO_ANSWER if answer is None else answer,
                "extraction_method": "fields of the program's signature",
                "is_terminal": True,
            }
        ],
        "evaluation": {"score": line.score, "is_correct": line.score == 1.0},
        **{name: value for name, value in optional.items() if value is not None},
        "metadata": _texts(facts),
    }


def _input(cell: ExportedCell, line: PredictionLine) -> dict[str, Any]:
    own, gold = cell.inputs.get(str(line.id)), as_text(line.gold)
    if own is None:
        return {"raw": NOT_EXPORTED, "reference": [] if gold is None else [gold]}
    raw = next(iter(own.values())) if len(own) == 1 else json.dumps(own, ensure_ascii=False)
    return {"raw": raw, "reference": [] if gold is None else [gold]}


def _tokens(line: PredictionLine) -> dict[str, int] | None:
    """The tokens of an answer; None where a part of them is not known."""
    read, written = line.prompt_tokens, line.completion_tokens
    if read is None or written is None:
        return None
    known = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
    parts = {"input_tokens_cache_read": line.cached_tokens, "reasoning_tokens": line.reasoning_tokens}
    return known | {name: value for name, value in parts.items() if value is not None}


def _model(cell: ExportedCell) -> dict[str, Any]:
    is_local = cell.cell.model.startswith(SERVED_HERE)
    facts = cell.record.model
    details = {
        "deployment_type": "self_deployed" if is_local else "unknown",
        "model_availability": "open_weights" if is_local else "unknown",
        "parameters_billions": facts.parameters_billions if facts else None,
        "parameters_status": facts.parameters_status if facts else None,
    }
    return {"name": cell.cell.model, "id": _model_id(cell), "additional_details": _texts(details)}


def _model_id(cell: ExportedCell) -> str:
    """The model as 'developer/name'."""
    return cell.cell.model if "/" in cell.cell.model else f"unknown/{cell.cell.model}"


def _evaluation_id(cell: ExportedCell) -> str:
    return f"{cell.cell.benchmark}/{_portable(cell.cell.model)}/{cell.record.cell_id}"


def _evaluation_name(cell: ExportedCell, program: str) -> str:
    return f"call-scaling.{cell.cell.benchmark}.{program}"


def _result_id(cell: ExportedCell, program: str) -> str:
    return f"{_evaluation_id(cell)}#{program}"


def _file_name(cell: ExportedCell) -> str:
    """A UUID of version 4, as the format wants it, which is the same each time."""
    return str(uuid.UUID(bytes=hashlib.sha256(_evaluation_id(cell).encode()).digest()[:16], version=4))


def _portable(name: str) -> str:
    return re.sub(r"[^\w.+-]", "-", name)


def _versions(cell: ExportedCell) -> dict[str, str]:
    environment = cell.record.environment
    return _texts({"python": environment.python, **environment.packages}) if environment else {}


def _version(cell: ExportedCell) -> str:
    """The commit that ran the cell."""
    environment = cell.record.environment
    return (environment and environment.git) or "unknown"


def _texts(facts: Mapping[str, Any]) -> dict[str, str]:
    """The facts that are known, as the texts that the format wants: true, 3, chain."""
    return dict(_known(facts))


def _known(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        if value is not None:
            yield name, str(value).lower() if isinstance(value, bool) else str(value)
