"""MathBench's release to the rows of DIR/mathbench: nested folders, a level each, and in them files by form."""

from __future__ import annotations

from pathlib import Path

from benchmarks.release import Release, read_rows
from scaling.types import UsageError

LEVELS = ("arithmetic", "primary", "middle", "high", "college")


def read_release(folder: Path) -> Release:
    """The English questions of all levels; UsageError where the folder holds no level.

    folder: the unpacked release, or one above it. A level's folder (`college`), and that of its theory
    (`college_knowledge`), hold `single_choice_en.jsonl` or `cloze_en.jsonl`. Each row keeps its level and part.
    """
    paths = [path for path in sorted(folder.rglob("*_en.jsonl")) if _level(path) in LEVELS]
    if not paths:
        raise UsageError(
            f"--from {folder}: no file LEVEL/*_en.jsonl is in it, of the levels {', '.join(LEVELS)}. "
            f"Unpack MathBench's release and give its folder."
        )
    rows = []
    for path in paths:
        part = "theory" if path.parent.name.endswith("_knowledge") else "application"
        for row in read_rows(path):
            choices = {"options": row["options"]} if row.get("options") else {}
            rows.append(
                {"question": row["question"], **choices, "answer": row["answer"], "level": _level(path), "part": part}
            )
    chinese = len([path for path in folder.rglob("*_cn.jsonl") if _level(path) in LEVELS])
    notes = [f"{chinese} files in Chinese are left out: the prompts are English"] if chinese else []
    return Release({"test.jsonl": rows}, notes, lambda raw: [" ".join(row["question"].split()) for row in raw])


def _level(path: Path) -> str:
    return path.parent.name.removesuffix("_knowledge")
