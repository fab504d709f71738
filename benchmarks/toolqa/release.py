"""ToolQA's release to DIR/toolqa: its questions, and its external corpora as tables in a database.

The questions are in the repository (`data/questions/{easy,hard}/*.jsonl`); the corpora are one archive that its README
links to (`data/external_corpus/<domain>/`). Questions of a domain without its corpus are left out.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.release import Release, data_files, read_rows
from benchmarks.sources import RawRows
from benchmarks.toolqa.data import templates
from benchmarks.toolqa.graph import tables_of
from benchmarks.toolqa.tables import write_database
from scaling.types import UsageError

DOMAINS = ("agenda", "airbnb", "coffee", "dblp", "flight", "gsm8k", "scirex", "yelp")
WITHOUT_CORPUS = ("gsm8k",)  # its questions need the calculator only
DIFFICULTIES = ("easy", "hard")
FOLDERS = {"flights": "flight"}  # domains whose folder has another name


def read_release(folder: Path, out: Path) -> Release:
    """The questions that can be answered; the corpora go into `out`/corpora. UsageError where nothing is found.

    folder: the repository with `data/external_corpus` in it, or a folder with `questions` and `external_corpus`.
    """
    questions = _questions(folder)
    found = _write_corpora(folder, out / "corpora")
    asked = dict.fromkeys(row["domain"] for row in questions)
    if not found:
        note = "no external_corpus is there: only --closed-book can ask these questions"
        return Release({"test.jsonl": questions}, [note], templates)
    missing = [domain for domain in asked if domain not in (*found, *WITHOUT_CORPUS)]
    kept = [row for row in questions if row["domain"] not in missing]
    notes = [f"tables of {', '.join(found)}"]
    if missing:
        left = len(questions) - len(kept)
        notes.append(f"{left} questions are left out, as the corpora of {', '.join(missing)} are not there")
    return Release({"test.jsonl": kept}, notes, templates)


def _questions(folder: Path) -> RawRows:
    """All questions with their domain and difficulty, in the order of domains."""
    rows = []
    for difficulty in DIFFICULTIES:
        for path in sorted(folder.rglob(f"questions/{difficulty}/*.jsonl")):
            domain = _domain(path.stem)
            rows += [_question(row, domain, difficulty) for row in read_rows(path)]
    if not rows:
        raise UsageError(
            f"--from {folder}: no file questions/easy/*.jsonl or questions/hard/*.jsonl is in it. "
            f"Give the folder of ToolQA's repository."
        )
    return rows


def _question(raw: dict[str, Any], domain: str, difficulty: str) -> dict[str, Any]:
    answer = raw["answer"] if isinstance(raw["answer"], str) else json.dumps(raw["answer"])
    return {
        "qid": raw["qid"],
        "question": raw["question"],
        "answer": answer,
        "domain": domain,
        "difficulty": difficulty,
    }


def _domain(stem: str) -> str:
    """The domain of a file; one file of the release lacks its first letter (`genda-hard`)."""
    name = stem.rpartition("-")[0].lower()
    matching = [domain for domain in DOMAINS if domain == name or domain.endswith(name)]
    if not name or len(matching) != 1:
        raise UsageError(f"'{stem}.jsonl' is of no known domain; known: {', '.join(DOMAINS)}.")
    return matching[0]


def _write_corpora(folder: Path, corpora: Path) -> list[str]:
    """Write the tables of every domain that has a folder, and the database of them; the domains."""
    found = []
    for subfolder in sorted(path for path in folder.rglob("external_corpus/*") if path.is_dir()):
        domain = FOLDERS.get(subfolder.name.lower(), subfolder.name.lower())
        if domain in DOMAINS and domain not in WITHOUT_CORPUS and _write_domain(subfolder, domain, corpora):
            found.append(domain)
    if found:
        write_database(corpora)
    return found


def _write_domain(subfolder: Path, domain: str, corpora: Path) -> bool:
    """Write the tables of one domain, named after it; whether it has any."""
    corpora.mkdir(parents=True, exist_ok=True)
    graph = tables_of(subfolder) if domain == "dblp" else {}
    for table, rows in graph.items():
        _write_csv(corpora / f"{table}.csv", rows)
    paths = data_files(subfolder)
    for path in paths:
        name = domain if len(paths) == 1 else f"{domain}_{path.stem}"
        if path.suffix == ".csv":
            shutil.copyfile(path, corpora / f"{name}.csv")
        else:
            _write_csv(corpora / f"{name}.csv", _as_table(read_rows(path)))
    return bool(graph or paths)


def _as_table(rows: RawRows) -> Iterable[list[Any]]:
    """Rows under the names of all their fields; a value that is no text or number is written as JSON."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    yield names
    for row in rows:
        yield [_cell(row.get(name)) for name in names]


def _cell(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else value


def _write_csv(path: Path, rows: Iterable[list[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
