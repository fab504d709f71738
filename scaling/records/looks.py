"""The decisions of a sequential study, a file each, in the folder `looks` of its results.

A decision is made once. Its file is never written again, so that a command that goes on finds what was decided.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, TypeVar

from msgspec import Meta, Struct

from scaling.records.codec import RecordError, encode
from scaling.records.programs import CellId
from scaling.records.record import Number, PredictionLine
from scaling.records.store import CellFiles, read_checked, read_objects
from scaling.sequential import Look, SequentialDesign
from scaling.types import SCHEMA_VERSION, UsageError, digest

LOOKS = "looks"
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Scores = dict[CellId, Sha256]
Decision = TypeVar("Decision", "GateDecision", "LookDecision")


class GateDecision(Struct, kw_only=True, frozen=True):
    """looks/STUDY-gate.json: for which models the chains of 3 steps are run.

    z: by model, of 5 steps minus 1 step. opened: the models whose z is above the design's gate. scores: as of a look.
    """

    study: str
    design: SequentialDesign
    z: dict[str, Number]
    opened: list[str]
    scores: Scores
    schema_version: int = SCHEMA_VERSION


class LookDecision(Struct, kw_only=True, frozen=True):
    """looks/STUDY-N.json: what look N decided, by which design and on which scores.

    scores: by cell_id, a digest of the scores that were judged. The same scores have the same digest on every machine,
    whenever they came. gate: the decision on the chains of 3 steps, where the design has a gate.
    """

    study: str
    design: SequentialDesign
    look: Look
    scores: Scores
    gate: GateDecision | None = None
    schema_version: int = SCHEMA_VERSION


def look_path(results: Path, study: str, name: int | str) -> Path:
    """Where a decision lies: that of look 1, 2 and so on, or 'gate'."""
    return results / LOOKS / f"{study}-{name}.json"


def read_looks(results: Path, study: str) -> list[LookDecision]:
    """The looks of a study so far, in order. Raises UsageError for one that cannot be read."""
    found: list[LookDecision] = []
    while (path := look_path(results, study, len(found) + 1)).exists():
        found.append(read_decision(path, LookDecision))
    return found


def read_gate(results: Path, study: str) -> GateDecision | None:
    """The gate's decision; None as long as there is none. Raises UsageError for one that cannot be read."""
    path = look_path(results, study, "gate")
    return read_decision(path, GateDecision) if path.exists() else None


def read_decision(path: Path, kind: type[Decision]) -> Decision:
    """One decision. Raises UsageError where the file is damaged, since nobody may decide again."""
    try:
        return read_checked(path, kind)
    except RecordError as error:
        raise UsageError(
            f"{path} is damaged ({error}), and a look is decided once. Bring the file back from a copy, or give "
            f"another --output-dir."
        ) from None


def decision_paths(folders: Iterable[Path]) -> list[Path]:
    """Where the looks under the folders are, each once; the gate's decision is in the looks after it."""
    found = {path.resolve(): path for folder in folders for path in folder.rglob(f"{LOOKS}/*-[0-9]*.json")}
    return sorted(found.values())


def write_once(path: Path, decision: GateDecision | LookDecision) -> None:
    """Write a decision whole and for good. Where there is one already, that one stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(encode(decision, indent=2))
            out.flush()
            os.fsync(out.fileno())
        os.chmod(beside, 0o644)
        _put_in_place(beside, path)
    finally:
        Path(beside).unlink(missing_ok=True)


def _put_in_place(beside: str, path: Path) -> None:
    """Give a finished file its name, where no file has that name yet."""
    try:
        os.link(beside, path)  # unlike a rename, it never replaces a file
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        if not path.exists():
            os.replace(beside, path)


def scores_digest(files: CellFiles) -> str:
    """A digest of a cell's scores before and after optimization, on each row, in whatever order they were written."""
    lines, _ = read_objects(files.predictions, PredictionLine)
    judged = [line for line in lines if line.program in ("baseline", "final")]
    scores = ([line.program, str(line.id), line.draw, line.score, line.extra_scores] for line in judged)
    return digest(sorted(scores, key=lambda score: score[:3]))
