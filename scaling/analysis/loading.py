"""Records to `Results`: which are used, which are left out and why, and one flat row a cell.

Of a cell that is found more than once, one is used: one that is ok before one that is not, and among equals the one
whose path comes first in the alphabet. The others are named.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from scaling.analysis.programs import refuse_mixtures
from scaling.analysis.reading import CellData, CellReader, LeftOut
from scaling.analysis.results import Results
from scaling.analysis.sequential import NOT_NEEDED, SequentialStudy, sequential_studies, study_of
from scaling.analysis.series import SERIES
from scaling.planning.optimizers import optimizes
from scaling.records.codec import RecordError
from scaling.records.record import CellClaim, Failure, Record, SweepPlan, Usage
from scaling.records.store import CLAIM, RECORD, plan_paths, read_checked, read_plan, read_record, record_paths
from scaling.types import SCHEMA_VERSION, Cell, UsageError, options_text

LOWEST_USED_SHARE = 0.80
OF_SOURCE = ("benchmark", "optimizer", "model", "optimizer_model")  # what a row says of the cell a program is from
# The outcome that is used where a cell has several, best first.
BEST_STATUS = ("ok", "invalid", "error", "skipped", "budget", "interrupted")
COPIED = (
    "cell_id", "status", "split", "n", "level", "note", "task_class", "baseline_score", "final_score", "improvement",
    "at_equal_calls_score", "check_score", "check_n", "val_baseline_score", "val_final_score", "rollouts_used",
    "lm_calls_per_example", "elapsed_seconds", "optimize_seconds",
)  # fmt: skip


def load(folders: Iterable[Path]) -> Results:
    """Read every record under the folders.

    Raises UsageError, with what to do, when none can be used, and when they are of different programs under one name.
    """
    folders = [Path(folder) for folder in folders]
    left_out: list[LeftOut] = []
    rows: dict[str, dict[str, Any]] = {}
    read = _readable(folders, left_out, rows)
    if not read:
        raise UsageError(_nothing(folders, left_out))
    refuse_mixtures(read)
    used = _one_of_each(read, left_out)
    reader = CellReader()
    data: dict[str, CellData] = {}
    places: dict[str, Path] = {}
    for number, (path, record) in enumerate(used):
        key = f"{record.cell_id}#{number}"
        places[key], rows[key] = path.parent, cell_row(record)
        if record.status == "ok":
            data[key] = reader.read(path.parent, record)
            left_out += data[key].left_out
            if data[key].unusable:
                rows[key] |= {"status": "left out", "error": data[key].unusable}
    plan, plans = _plan(folders, left_out)
    studies = sequential_studies(plans, [record for _, record in used])
    there = {row["cell_id"] for row in rows.values()}
    rows |= {
        f"{cell_id}#": _row_of_plan(cell_id, planned.cell, study_of([cell_id], studies))
        for cell_id, planned in sorted(plan.cells.items()) if cell_id not in there
    }  # fmt: skip
    _leave_out_repeats(rows, places, left_out)
    cells = pd.DataFrame(list(rows.values()), index=pd.Index(list(rows), name="key"))
    asked = [answer.question for answer in plan.questions]
    return Results(cells, places, plan.cells, data, left_out, used[0][1].environment, asked, studies)


def cell_row(record: Record) -> dict[str, Any]:
    """A record as one flat row; absent fields are null."""
    row = asdict(record.cell) | {name: getattr(record, name) for name in COPIED}
    row["optimizer_options"] = options_text(record.cell.optimizer_options)
    row["frozen_roles"] = " ".join(record.cell.frozen_roles)
    row |= _start(record)
    row["sample"] = bool(record.sample)
    row["unchanged"] = bool(record.unchanged) if record.status == "ok" else record.unchanged
    row["own_score"] = _own_score(record)
    row["rollouts_list_cost_usd"] = record.hosted.rollouts_list_cost_usd if record.hosted else None
    row["test_sha256"] = record.data.test_sha256 if record.data else None
    row["error"] = record.error.message if record.error else None
    row["program_known"] = record.program is not None
    row["parameters_status"] = (record.model and record.model.parameters_status) or "unknown"
    for name in ("parameters_billions", "output_usd_per_million", "context_length"):
        row[name] = getattr(record.model, name, None)
    row["parameters_billions"] = row["parameters_billions"] or None  # a size of 0 has no logarithm
    usage = {
        "optimize": record.usage and record.usage.optimize,
        "evaluate": record.usage and record.usage.evaluate,
        "proposal": record.proposal_usage,
    }
    for phase, sums in usage.items():
        row |= {f"{phase}_{name}": getattr(sums, name, None) for name in Usage.__struct_fields__}
    for name in ("tried", "unparsed", "accepted"):
        row[f"proposals_{name}"] = getattr(record.proposals, name, None)
    for name in ("infrastructure", "parse"):
        row[f"error_rate_{name}"] = getattr(record.error_rates, name, None)
    row["used_share"] = _used_share(record)
    lowest = LOWEST_USED_SHARE if record.cell.stop_when_flat is None else 0.0
    row["flagged"] = row["used_share"] is not None and not lowest <= row["used_share"] <= 1.0
    return row


def _start(record: Record) -> dict[str, str | None]:
    """What the cell was given, in words, and the cell that it is from."""
    start, source = record.start, record.start.cell if record.start else None
    row: dict[str, str | None] = {f"source_{name}": getattr(source, name, None) for name in OF_SOURCE}
    row["source_options"] = options_text(source.optimizer_options) if source else None
    if start is None:
        return row | {"start": ""}
    if source is None:
        return row | {"start": f"from {start.file} {start.sha256[:6]}"}
    options = f" ({row['source_options']})" if row["source_options"] else ""
    proposer = "" if source.optimizer_model == source.model else f", proposer {source.optimizer_model}"
    elsewhere = "" if source.benchmark == record.cell.benchmark else f" of {source.benchmark}"
    return row | {"start": f"from {source.optimizer}{options} on {source.model}{proposer}{elsewhere}"}


def _readable(
    folders: list[Path], left_out: list[LeftOut], rows: dict[str, dict[str, Any]]
) -> list[tuple[Path, Record]]:
    """The records that can be used, with their paths. The others are noted, with a row for each whose cell is known."""
    read = []
    for path in record_paths(folders):
        try:
            read.append((path, read_record(path)))
        except RecordError as error:
            left_out.append(LeftOut("cell", path, str(error)))
            try:
                claim = read_checked(path.with_name(CLAIM), CellClaim)
            except RecordError:
                continue
            row = _row_without_record(claim.cell_id, claim.cell, "left out", f"{RECORD}: {error}")
            rows[f"{claim.cell_id}#{path}"] = row
    return read


def _one_of_each(read: list[tuple[Path, Record]], left_out: list[LeftOut]) -> list[tuple[Path, Record]]:
    """One record a cell; each other one is named with the reason."""
    by_cell: dict[str, list[tuple[Path, Record]]] = {}
    for path, record in read:
        by_cell.setdefault(record.cell_id, []).append((path, record))
    used = []
    for copies in by_cell.values():
        chosen, *others = sorted(copies, key=lambda copy: (BEST_STATUS.index(copy[1].status), copy[0]))
        used.append(chosen)
        left_out += [LeftOut("copy of a cell", path, _beside(record, *chosen)) for path, record in others]
    return sorted(used, key=lambda copy: copy[0])


def _beside(record: Record, path: Path, chosen: Record) -> str:
    """Why another copy of the cell is used."""
    used = f"{path} holds the same cell and is used"
    if record.status != chosen.status:
        return f"{used}: that one is {chosen.status}, this one {record.status}"
    if record.final_score != chosen.final_score:
        return f"{used}: it comes first in the alphabet, and their final scores differ"
    return f"{used}: it comes first in the alphabet"


def _leave_out_repeats(rows: dict[str, dict[str, Any]], places: dict[str, Path], left_out: list[LeftOut]) -> None:
    """Another cell that is the same run of the same series at the same steps would be counted twice."""
    first: dict[tuple[str, ...], str] = {}
    for key, row in rows.items():
        if row["status"] != "ok":
            continue
        used = first.setdefault(tuple(str(row.get(name)) for name in (*SERIES, "steps", "run")), key)
        if used != key:
            fields = [name for name in Cell.__dataclass_fields__ if row.get(name) != rows[used].get(name)]
            reason = f"{places[used] / RECORD} is the same run and is used; they differ in {', '.join(fields)}"
            left_out.append(LeftOut("cell", places[key] / RECORD, reason))
            row |= {"status": "left out", "error": reason}


def _plan(folders: list[Path], left_out: list[LeftOut]) -> tuple[SweepPlan, dict[Path, SweepPlan]]:
    """What cells were estimated at before they ran and what the studies asked: all together, and by results folder."""
    whole = SweepPlan()
    plans: dict[Path, SweepPlan] = {}
    for path in plan_paths(folders):
        try:
            plan = read_plan(path)
        except RecordError as error:
            left_out.append(LeftOut("estimates", path, str(error)))
            continue
        whole.cells |= plan.cells
        whole.questions += plan.questions
        plans[path.parent] = plan
    return whole, plans


def _row_of_plan(cell_id: str, cell: Cell, study: SequentialStudy | None) -> dict[str, Any]:
    """A cell that was planned and has no record: one that may still run, or one that looks have made needless."""
    why = study.why_not_run(cell) if study is not None else ""
    return _row_without_record(cell_id, cell, NOT_NEEDED if why else "not run", why or "planned, no record yet")


def _row_without_record(cell_id: str, cell: Cell, status: str, why: str) -> dict[str, Any]:
    record = Record(
        schema_version=SCHEMA_VERSION, status="skipped", cell_id=cell_id, cell=cell, error=Failure(status, why)
    )
    return cell_row(record) | {"status": status}


def _own_score(record: Record) -> float | None:
    """The score that the optimizer itself reports for its program; a hosted one's on a scale of its own is unknown."""
    if record.hosted is None:
        return record.val_final_score
    best = record.hosted.best_score
    return best if best is not None and 0 <= best <= 1 else None


def _used_share(record: Record) -> float | None:
    """Rollouts used over rollouts asked for."""
    if not optimizes(record.cell.optimizer) or not record.cell.rollout_budget or record.rollouts_used is None:
        return None
    return record.rollouts_used / record.cell.rollout_budget


def _nothing(folders: list[Path], left_out: list[LeftOut]) -> str:
    names = ", ".join(str(folder) for folder in folders)
    if not left_out:
        return f"no results in {names}. Run: python run_scaling_experiment.py --quick"
    more = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
    return f"no record in {names} can be used: {left_out[0].file}: {left_out[0].reason}{more}"
