"""The cell's hosted job on disk (hosted_job.json), from before it is submitted: a kill never buys a second one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from scaling.hosted.client import SynthError
from scaling.llm.meter import Meter
from scaling.records.codec import RecordError, decode
from scaling.records.record import CallRecord, HostedJob
from scaling.records.store import write_json
from scaling.run.record import recordable


class StoredJob(msgspec.Struct):
    """How far the job of a cell is, what its record says of it, and what its rollouts used.

    stage: `submitting` before its id is known; `running` from then on; `ended` once its prompt is in our program.
    Files of earlier versions hold jobs that have ended. name: ours, which the job's own data hold at the backend.
    """

    cell_id: str
    facts: HostedJob
    rollouts: int = 0
    calls: list[CallRecord] = []
    stage: Literal["submitting", "running", "ended"] = "ended"
    name: str | None = None


def store(
    path: Path, meter: Meter, facts: HostedJob, stage: Literal["submitting", "running", "ended"],
    name: str | None = None,
) -> None:  # fmt: skip
    facts = recordable(facts)
    write_json(path, StoredJob(meter.cell_id, facts, meter.rollouts["optimize"], meter.hosted_calls, stage, name))


def stored(path: Path, cell_id: str, since: float) -> StoredJob | None:
    """The job of this cell; None where there is none, or one from before `since` (seconds since 1970).

    Raises SynthError for a damaged file.
    """
    if not path.exists() or path.stat().st_mtime < since:
        return None
    try:
        job = decode(path.read_bytes(), StoredJob)
    except RecordError as error:
        raise SynthError(
            f"{path} is damaged ({error}); look for the job at the backend, then remove the file"
        ) from None
    return job if job.cell_id == cell_id else None
