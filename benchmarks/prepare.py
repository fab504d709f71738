"""Make the folder that `--data DIR` reads: python -m benchmarks.prepare NAME --out DIR [--from FOLDER|hub] [--rows N]

The rows come from a benchmark's release as it was published (a folder), or from the Hugging Face hub. --rows makes a
fixed sample. --csv writes beside it a CSV file of questions and answers, which `--benchmarks FILE.csv` reads.
"""

from __future__ import annotations

import csv
import importlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks import sources
from benchmarks.mathbench import release as mathbench
from benchmarks.release import Release, data_files, read_rows, sample_of, write_jsonl
from benchmarks.superglue import data as superglue_data
from benchmarks.superglue import release as superglue
from benchmarks.toolqa import release as toolqa
from scaling.arguments import ArgumentParser, whole_number
from scaling.types import EXIT_OK, EXIT_USAGE, UsageError, unknown_name

# Benchmarks whose release has a form of its own: what reads it, given the release's folder and DIR/NAME.
CONVERTERS: dict[str, Callable[[Path, Path], Release]] = {
    "toolqa": toolqa.read_release,
    "mathbench": lambda folder, out: mathbench.read_release(folder),
    "superglue": lambda folder, out: superglue.read_release(folder),
}
ON_HUB = ("banking77", "heartdisease", "hotpotqa", "gsm8k", "math", "superglue", "humaneval")
NAMES = sorted({*CONVERTERS, *ON_HUB})


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code (0 well, 2 usage)."""
    parser = ArgumentParser((__doc__ or "").splitlines()[0])
    parser.add_argument("name", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="what --data is given then")
    parser.add_argument("--from", dest="source", default="hub", metavar="FOLDER|hub",
                        help="the unpacked release, or the hub")  # fmt: skip
    parser.add_argument("--rows", type=whole_number, metavar="N", help="a fixed sample of N test rows (100)")
    parser.add_argument("--csv", action="store_true", help="also DIR/NAME.csv with the test questions and answers")
    options = parser.parse_args(argv)
    try:
        lines = prepare(options.name, options.source, options.out, options.rows, options.csv)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    print("\n".join(lines))
    return EXIT_OK


def prepare(name: str, source: str, out: Path, rows: int | None = None, with_csv: bool = False) -> list[str]:
    """Write DIR/NAME from a release's folder or the hub, and return what there is to say of it.

    rows: how many test rows a fixed sample has; None for all. Nothing is there before everything is: the folder is
    made beside and renamed. Raises UsageError for what cannot be read, and where DIR/NAME exists.
    """
    if name not in NAMES:
        raise unknown_name("benchmark", name, NAMES, f"Type python -m benchmarks.prepare {NAMES[0]} --out DIR.")
    target, beside = out / name, out / f".{name}.partial"
    if target.exists():
        raise UsageError(f"{target} exists. Give another --out, or move it away.")
    if rows is not None and rows < 1:
        raise UsageError(f"--rows {rows}: at least 1 is needed. Type --rows 100.")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        release = read_release(name, source, beside)
        release = release if rows is None else sample_of(release, rows)
        for file, listed in release.files.items():
            write_jsonl(beside / file, listed)
        beside.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    lines = [f"wrote {target / file}: {len(listed)} rows" for file, listed in release.files.items()]
    lines += [f"note: {note}" for note in release.notes]
    lines += _sizes(name, out)
    if with_csv:
        lines.append(write_csv(name, out))
    return [*lines, f"now: python run_scaling_experiment.py --benchmarks {name} --data {out}"]


def read_release(name: str, source: str, out: Path) -> Release:
    """The rows of a release, or of the hub. out: where files that are no rows go. UsageError where they are not."""
    if source == "hub":
        if name not in ON_HUB:
            raise UsageError(f"{name} is not on the Hugging Face hub. Give its unpacked release with --from FOLDER.")
        return superglue_from_hub() if name == "superglue" else from_hub(_data(name), name)
    folder = Path(source)
    if not folder.is_dir():
        raise UsageError(f"--from {folder}: there is no such folder. Give the folder of the unpacked release, or hub.")
    return CONVERTERS[name](folder, out) if name in CONVERTERS else from_folder(folder)


def from_folder(folder: Path) -> Release:
    """A folder of files with the hub's columns, told apart by their names; the rows of each side in one file."""
    files: dict[str, Any] = {}
    for path in data_files(folder):
        side = "train" if "train" in path.stem else "test" if sources.is_test(path.stem) else "pool"
        files.setdefault(f"{side}.jsonl", []).extend(read_rows(path))
    if not files:
        raise UsageError(f"--from {folder}: it holds no .jsonl, .json, .csv or .parquet file.")
    return Release(files)


def from_hub(data: ModuleType, name: str) -> Release:
    """The rows of a benchmark of one table, from where its own loader has them."""
    parts = [data.HUB] if hasattr(data, "HUB") else [data.HUB_TRAIN, data.HUB_TEST]
    read = [sources.read("hub", Path(data.__file__ or name).parent, hub) for hub in parts]
    if len(read) == 2:
        read = [read[0] | {"test": read[1]["train"]}]
    return _split(read[0], "")


def superglue_from_hub() -> Release:
    """All subtasks."""
    whole = Release({}, [], superglue._groups)
    for subtask in superglue_data.SUBTASKS:
        hub = superglue_data.HUB | {"name": subtask}
        part = _split(sources.read("hub", superglue_data.PACKAGE, hub), f"{subtask}/")
        whole.files.update(part.files)
        whole.notes.extend(f"{subtask}: {note}" for note in part.notes)
    return whole


def write_csv(name: str, out: Path) -> str:
    """DIR/NAME.csv: the test rows as `--benchmarks FILE.csv` reads them; the line that says so."""
    package = importlib.import_module(f"benchmarks.{name}")
    loaded = _data(name).load(str(out))
    rows = loaded["test"] or loaded["train"]
    inputs, (output, *_) = list(package.CONFIG["signature"].input_fields), package.CONFIG["signature"].output_fields
    path = out / f"{name}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "question", "answer", "group"])
        for number, row in enumerate(rows):
            asked = "\n".join(str(row[field]) for field in inputs)
            own = row.get("id", f"{name}-{number:05d}")
            writer.writerow([own, asked, row[output], row.get("group", own)])
    return f"wrote {path}: {len(rows)} rows"


def _split(raw: dict[str, Any], folder: str) -> Release:
    """The rows of one table as files, with the names of its labels in place of their numbers' order."""
    files = {f"{folder}{part}.jsonl": _with_names(raw, raw[part]) for part in ("train", "test") if raw[part]}
    return Release(files, [f"revision {raw['revision']}"] if raw.get("revision") else [])


def _with_names(raw: dict[str, Any], rows: list[Any]) -> list[dict[str, Any]]:
    names = raw.get("label_names")
    return [dict(row) | ({"label": sources.named(row["label"], names)} if names else {}) for row in rows]


def _sizes(name: str, out: Path) -> list[str]:
    """Whether the benchmark's own sizes can be filled."""
    config = importlib.import_module(f"benchmarks.{name}").CONFIG
    loaded = _data(name).load(str(out))
    asked = {part: len(config[f"{part}_seeds"]) for part in ("train", "val", "test") if config.get(f"{part}_seeds")}
    needed = sum(size for part, size in asked.items() if part != "test" or not loaded["test"])
    wanted = ", ".join(f"{size} {part}" for part, size in asked.items())
    short = [part for part, has, needs in (
        ("train and val" if loaded["test"] else "train, val and test", len(loaded["train"]), needed),
        ("test", len(loaded["test"] or ()), asked.get("test", 0) if loaded["test"] else 0),
    ) if has < needs]  # fmt: skip
    if not short:
        return []
    return [f"note: the sizes of {name} ({wanted}) cannot be filled for {' or '.join(short)}: a sweep uses fewer rows"]


def _data(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.{name}.data")


if __name__ == "__main__":
    sys.exit(main())
