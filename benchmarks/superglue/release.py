"""SuperGLUE's release to the rows of DIR/superglue: a folder for each subtask, with the hub's columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.release import Release, read_rows
from benchmarks.sources import RawRows
from benchmarks.superglue.data import GROUPED_BY, SUBTASKS
from scaling.types import UsageError

RELEASED = {"wsc": "wsc.fixed"}  # names of the release that are others here
FILES = {"train": "train", "val": "validation", "validation": "validation"}  # the test labels are secret


def read_release(folder: Path) -> Release:
    """Train and validation rows of the subtasks that are there; UsageError where there is none.

    folder: holds BoolQ, CB, COPA, RTE, WiC or WSC (in any case), each with train.jsonl and val.jsonl.
    """
    files: dict[str, RawRows] = {}
    for subfolder in sorted(path for path in folder.iterdir() if path.is_dir()):
        subtask = RELEASED.get(subfolder.name.lower(), subfolder.name.lower())
        for path in sorted(subfolder.glob("*.jsonl")) if subtask in SUBTASKS else []:
            if path.stem in FILES:
                files[f"{subtask}/{FILES[path.stem]}.jsonl"] = [_row(row) for row in read_rows(path)]
    if not files:
        raise UsageError(
            f"--from {folder}: no folder of a subtask with train.jsonl or val.jsonl is in it, of "
            f"{', '.join(SUBTASKS)}. Unpack SuperGLUE's release and give its folder."
        )
    missing = [subtask for subtask in SUBTASKS if not any(name.startswith(f"{subtask}/") for name in files)]
    return Release(files, [f"not there: {', '.join(missing)}"] if missing else [], _groups)


def _row(raw: dict[str, Any]) -> dict[str, Any]:
    """A row with the hub's columns: the spans of WSC stand in a table of their own in the release."""
    target = raw.get("target") or {}
    spans = {name: target[name] for name in ("span1_text", "span2_text") if name in target}
    return {name: value for name, value in raw.items() if name != "target"} | spans


def _groups(rows: RawRows) -> list[str]:
    """The passage or premise of each row, where it has one."""
    fields = list(dict.fromkeys(GROUPED_BY.values()))
    shared = [next((str(row[name]) for name in fields if name in row), "") for row in rows]
    return [" ".join(text.split()) or str(number) for number, text in enumerate(shared)]
