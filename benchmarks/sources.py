"""Where rows come from, the same for every benchmark: the sample that ships, a folder, or the Hugging Face hub.

A benchmark's loader calls `read(...)` with its own names and turns the raw rows into its own fields.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from scaling.types import UsageError

RawRows = list[dict[str, Any]]
TEST_WORDS = ("test", "validation")


def read(source: str, package: Path, hub: dict[str, Any]) -> dict[str, Any]:
    """Raw rows as {"train": [...], "test": [...] or None, "revision": str or None, "label_names": ...}.

    source: "sample", "hub" or a folder. package: the benchmark's own folder, whose name its rows have too. hub: what
    `datasets.load_dataset` needs (path, name, train and test splits, revision). Raises UsageError naming the other
    sources when one is not there.
    """
    if source == "sample":
        rows = read_jsonl(package / "sample.jsonl")
        return {"train": rows, "test": None, "revision": None, "label_names": None}
    if source == "hub":
        return _read_hub(hub, package.name)
    return read_folder(Path(source), package.name)


def read_jsonl(path: Path) -> RawRows:
    """Rows of a JSON-lines file; UsageError with the line number for one that does not parse."""
    rows = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise UsageError(f"{path}, line {number} is not JSON ({error}). Fix or remove that line.") from None
    return rows


def named(value: Any, label_names: list[str] | None) -> str:
    """A label as its name: numbers are looked up, names stay.

    Raises UsageError for a number that no name has, such as the -1 of rows without a label, and for no label at all.
    """
    if value is None:
        raise UsageError("a row has no label (null). Leave rows without a label out.")
    if isinstance(value, int) and label_names is not None:
        if not 0 <= value < len(label_names):
            last = len(label_names) - 1
            raise UsageError(f"a row has the label {value}, and the labels are 0 to {last}. Leave such rows out.")
        return label_names[value]
    return str(value)


def read_folder(folder: Path, name: str) -> dict[str, Any]:
    """Raw rows of folder/name/*.jsonl, told apart by their names; UsageError when there are none."""
    rows_folder = folder / name
    if not os.path.isdir(rows_folder):  # also where the name is too long for one
        raise UsageError(
            f"--data {str(folder)[-200:]}: there is no folder {name} in it. "
            f"Give a folder that holds {name}/*.jsonl, or --data sample, or --data hub."
        )
    files = sorted(rows_folder.glob("*.jsonl"))
    if not files:
        raise UsageError(
            f"--data {folder}: {rows_folder} holds no .jsonl file. Put the rows there, or use --data sample."
        )
    train = [row for f in files if "train" in f.stem for row in read_jsonl(f)]
    test = [row for f in files if "train" not in f.stem and is_test(f.stem) for row in read_jsonl(f)]
    pool = [row for f in files if "train" not in f.stem and not is_test(f.stem) for row in read_jsonl(f)]
    names_file = rows_folder / "label_names.json"
    label_names = json.loads(names_file.read_text(encoding="utf-8")) if names_file.exists() else None
    if not train:
        train, test = train + pool + ([] if pool else test), test if pool else []
    return {"train": train, "test": test or None, "revision": None, "label_names": label_names}


def is_test(stem: str) -> bool:
    """Whether a file of this name holds test rows."""
    return any(word in stem for word in TEST_WORDS)


def _read_hub(hub: dict[str, Any], name: str) -> dict[str, Any]:
    """Rows from the hub as Parquet (datasets 5 refuses loading scripts), with the commit they came from."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import datasets
        from huggingface_hub import HfApi

        datasets.disable_progress_bars()
        revision = hub.get("revision", "main")
        commit = HfApi().dataset_info(hub["path"], revision=revision, timeout=20).sha
        splits = {
            part: datasets.load_dataset(hub["path"], hub.get("name"), split=hub[part], revision=commit)
            for part in ("train", "test")
            if hub.get(part)
        }
    except Exception as error:  # the hub's clients raise many kinds; each means: not to be had now
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise UsageError(
            f"cannot read '{hub['path']}' from the Hugging Face hub ({type(error).__name__}: {reason}). "
            f"Use --data sample, or --data DIR with DIR/{name}/*.jsonl."
        ) from None
    label_names = None
    for feature in splits["train"].features.values():
        label_names = getattr(feature, "names", None) or label_names
    return {
        "train": list(splits["train"]),
        "test": list(splits["test"]) if "test" in splits else None,
        "revision": commit,
        "label_names": label_names,
    }
