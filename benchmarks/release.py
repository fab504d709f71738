"""What a benchmark's raw release holds, and a fixed sample of it: shared by `benchmarks.prepare` and its converters."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.sources import RawRows, is_test, read_jsonl
from scaling.types import BREAKDOWNS, UsageError

ENDINGS = (".jsonl", ".json", ".csv", ".parquet")


def _each_its_own(rows: RawRows) -> list[str]:
    return [str(number) for number in range(len(rows))]


@dataclass(frozen=True)
class Release:
    """Rows by the path of their file under DIR/NAME, what must be said of them, and which rows belong together.

    groups: gives each row of a file the name of its group, such as the question's template.
    """

    files: dict[str, RawRows]
    notes: list[str] = field(default_factory=list)
    groups: Callable[[RawRows], list[str]] = _each_its_own


def read_rows(path: Path) -> RawRows:
    """Rows of a JSON-lines, JSON, CSV or Parquet file; UsageError for another file or one that cannot be read."""
    try:
        if path.suffix == ".jsonl":
            return read_jsonl(path)
        if path.suffix == ".json":
            return _read_json(path)
        if path.suffix == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                return [dict(row) for row in csv.DictReader(file)]
        if path.suffix == ".parquet":
            return _read_parquet(path)
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read ({' '.join(str(error).split())[:200]}).") from None
    raise UsageError(f"{path} cannot be read: it ends in none of {', '.join(ENDINGS)}.")


def data_files(folder: Path) -> list[Path]:
    """The files of a folder that hold rows."""
    return [path for path in sorted(folder.iterdir()) if path.suffix in ENDINGS and path.is_file()]


def sample_of(release: Release, size: int) -> Release:
    """A release with `size` test rows, the same on every machine, evenly over subtasks, levels, domains, difficulties.

    Rows are taken by a digest of their content. Where a folder has test rows only, half of its groups are for train
    and val, so that no group is on both sides. Raises UsageError where there are not so many rows.
    """
    files: dict[str, RawRows] = {}
    candidates: list[tuple[str, dict[str, Any], str]] = []
    for name, rows in release.files.items():
        groups = release.groups(rows)
        if not _is_test_file(name):
            files[name] = rows
            continue
        lone = not any(other != name and _folder(other) == _folder(name) for other in release.files)
        kept = [lone and int(_digest(group), 16) % 2 == 0 for group in groups]
        if lone:
            train = name.replace("test", "train").replace("validation", "train")
            files[train] = [row for row, is_train in zip(rows, kept, strict=True) if is_train]
        listed = zip(rows, groups, kept, strict=True)
        candidates += [(name, row, group) for row, group, is_train in listed if not is_train]
    if len(candidates) < size:
        raise UsageError(f"--rows {size}: there are {len(candidates)} rows for test. Type --rows {len(candidates)}.")
    for name, row, _ in _evenly(candidates)[:size]:
        files.setdefault(name, []).append(row)
    note = f"a fixed sample of {size} test rows of {len(candidates)}"
    return replace(release, files=files, notes=[*release.notes, note])


def write_jsonl(path: Path, rows: RawRows) -> None:
    """Rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _evenly(candidates: list[tuple[str, dict[str, Any], str]]) -> list[tuple[str, dict[str, Any], str]]:
    """One of each category in turn; inside a category one of each group in turn; else by the rows' digests."""
    by_category: dict[str, list[tuple[int, str, int]]] = defaultdict(list)
    seen: Counter[tuple[str, str]] = Counter()
    order = sorted(range(len(candidates)), key=lambda i: _digest(json.dumps(candidates[i][1], sort_keys=True)))
    for i in order:
        name, row, group = candidates[i]
        category = " ".join([_folder(name), *(str(row.get(known, "")) for known in BREAKDOWNS)])
        seen[category, group] += 1
        by_category[category].append((seen[category, group], _digest(group), i))
    turns = []
    for category, members in by_category.items():
        turns += [(turn, category, i) for turn, (*_, i) in enumerate(sorted(members))]
    return [candidates[i] for *_, i in sorted(turns)]


def _is_test_file(name: str) -> bool:
    return "train" not in name and is_test(Path(name).stem)


def _folder(name: str) -> str:
    return str(Path(name).parent)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read_json(path: Path) -> RawRows:
    """A list of rows, or JSON lines under another ending."""
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        return list(json.loads(text))
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _read_parquet(path: Path) -> RawRows:
    import duckdb  # only where there is a Parquet file

    found = duckdb.sql("SELECT * FROM read_parquet($path)", params={"path": str(path)})
    assert found is not None  # a SELECT has a result
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]
