#!/usr/bin/env python
"""Put records, configs, plan, lock file, data digests, report and program into one archive for another laboratory.

`python package_results.py` reads results/ and writes package.tar.gz. No keys, no prompts cache, no paths and no names
of machines or users go in; the same results give the same bytes.
"""

from __future__ import annotations

from scaling import interrupt

interrupt.end_at_once(__name__)  # until `main`

import gzip
import importlib.metadata
import io
import json
import os
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

import analyze_results
from scaling.arguments import ArgumentParser, check_output_folder, one_line_errors
from scaling.planning.study import choices_of, toml_of
from scaling.records.codec import RecordError, as_plain
from scaling.records.record import Record
from scaling.records.store import AGGREGATE, CACHE, CLAIM, LEDGER, LOG, PREDICTIONS, SWEEP, read_record, record_paths
from scaling.records.store import PROGRAM as PROGRAM_FILE
from scaling.redact import hide_known, redact, remember, secret_variables
from scaling.types import EXIT_OK, UsageError

ROOT = Path(__file__).parent
PROGRAM = ("*.py", "*.txt", "*.md", "LICENSE", "Makefile", "pyproject.toml", "scaling/**/*", "benchmarks/**/*")
LEFT_OUT = {Path(CACHE).parts[0], Path(LEDGER).parts[0], LOG, SWEEP, AGGREGATE, CLAIM}
HOW_TO = """To run any of these cells again: Python 3.11 to 3.14, `pip install -r requirements.lock`, then

    python run_scaling_experiment.py --config configs/<cell_id>.toml --data hub

with the same data source as in data_digests.json: where the digests of the rows agree, the cell_id does too. Models
that were given with --models-file must be given again. `python analyze_results.py` makes the tables and figures again.
"""


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code (0 well, 2 usage)."""
    parser = ArgumentParser(__doc__)
    parser.add_argument(
        "--results-dir", type=Path, default=Path("results"), metavar="DIR", help="the folder with records (results)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("package.tar.gz"),
        metavar="FILE.tar.gz",
        help="the archive (package.tar.gz)",
    )
    options = parser.parse_args(argv)
    interrupt.end_in_order()  # its folder of drafts is removed
    check_output(options.output)
    count = write_package(options.results_dir, options.output)
    print(f"wrote {options.output}: {count} cells")
    return EXIT_OK


def check_output(output: Path) -> None:
    """Raise UsageError, before anything is gathered, for an archive that cannot be written."""
    check_output_folder(output.parent, "--output")
    if output.is_dir():
        raise UsageError(f"--output: {output} is a folder. Type --output NAME.tar.gz")


def write_package(results: Path, output: Path) -> int:
    """Write the archive; returns how many cells are in it. Raises UsageError without records, or for a key in them."""
    variables = secret_variables({name: value or "" for name, value in dotenv_values(".env").items()} | os.environ)
    remember(*variables.values())
    with tempfile.TemporaryDirectory() as scratch:
        stage = Path(scratch)
        count = stage_results(results, stage / "results")
        for cell_id, text in configs(stage / "results"):
            _write(stage / "configs" / f"{cell_id}.toml", text)
        _write(stage / "data_digests.json", json.dumps(digests(stage / "results"), indent=2) + "\n")
        _write(stage / "requirements.lock", lock())
        _write(stage / "HOW_TO.md", HOW_TO)
        for path in program_files():
            _write(stage / path.relative_to(ROOT), path.read_bytes())
        _refuse_secrets(stage, variables)
        here = Path.cwd()
        os.chdir(stage)  # so that the report names its records from the archive's top
        try:
            analyze_results.analyze([Path("results")], Path("."), ["png", "pdf"])
        finally:
            os.chdir(here)
        _refuse_secrets(stage, variables)
        _archive(stage, output)
    return count


def stage_results(results: Path, stage: Path) -> int:
    """Copy everything that is a result, without what names this machine; returns the number of cells."""
    home = results.resolve()
    for path in sorted(results.rglob("*")):
        inside = path.relative_to(results)
        if LEFT_OUT & set(inside.parts):
            continue
        if not path.resolve().is_relative_to(home):
            print(f"left out: {path} is a link out of the folder", file=sys.stderr)
        elif path.is_file():
            try:
                text = path.read_text(encoding="utf-8")
                if path.suffix == ".json":
                    text = json.dumps(without_paths(json.loads(text)), indent=2, ensure_ascii=False) + "\n"
            except (ValueError, RecursionError, OSError):  # what names this machine could not be taken out of it
                print(f"left out: {path} is damaged", file=sys.stderr)
                continue
            _write(stage / inside, text)
    records = usable_records(stage)
    if not records:
        raise UsageError(f"no results in {results}. Run: python run_scaling_experiment.py --quick")
    return len(records)


def usable_records(results: Path) -> list[Record]:
    """The records under a folder that can be read."""
    records = []
    for path in record_paths([results]):
        with suppress(RecordError):
            records.append(read_record(path))
    return records


def without_paths(value: Any, name: str = "") -> Any:
    """The same data without tracebacks and folders: where rows came from is `folder`, their digests say which."""
    if isinstance(value, dict):
        return {key: without_paths(item, key) for key, item in value.items() if key != "traceback"}
    if isinstance(value, list):
        return [without_paths(item, name) for item in value]
    if name in ("data", "source") and isinstance(value, str) and value not in ("hub", "sample"):
        return "folder"
    if name == "start_from" and isinstance(value, str):
        return Path(value).name
    if isinstance(value, str) and name == "message":
        value = redact(value)
        return " ".join(Path(word).name if word.startswith(("/", "'/", "~")) else word for word in value.split(" "))
    return value


def configs(results: Path) -> Iterator[tuple[str, str]]:
    """(cell_id, TOML text) of each cell, to be run with --config."""
    for record in usable_records(results):
        choices = choices_of(record.cell)
        choices["data"] = choices["data"] if choices["data"] in ("hub", "sample") else "hub"
        yield record.cell_id, toml_of({"name": record.cell_id} | choices)


def digests(results: Path) -> dict[str, Any]:
    """cell_id -> source, revision and digests of the rows of its splits."""
    return {record.cell_id: as_plain(record.data) if record.data else None for record in usable_records(results)}


def lock() -> str:
    """Every installed package with its version; none by path or address."""
    versions = {dist.metadata["Name"].lower(): dist.version for dist in importlib.metadata.distributions()}
    own = ("call-scaling",)
    return "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()) if name not in own)


def program_files() -> list[Path]:
    """The program's own files: scripts, library, benchmarks, plan; nothing generated."""
    found = {path for pattern in PROGRAM for path in ROOT.glob(pattern) if path.is_file()}
    generated = ("summary_results", "summary_runs", "summary_tests", "summary_fits", "summary_breakdowns",
                 "summary_transfer")  # fmt: skip
    return sorted(p for p in found if "__pycache__" not in p.parts and not p.name.startswith(generated))


def _refuse_secrets(stage: Path, variables: Mapping[str, str]) -> None:
    """Raise UsageError for a secret in anything that is packed: known values everywhere, look-alikes in messages."""
    for path in sorted(p for p in stage.rglob("*") if p.is_file()):
        text = path.read_bytes().decode("utf-8", errors="replace")
        is_no_answer = path.suffix in (".json", ".jsonl") and path.name not in (PREDICTIONS, PROGRAM_FILE)
        suspect = is_no_answer and path.is_relative_to(stage / "results") and redact(text) != text
        if suspect or hide_known(text) != text:
            names = [name for name, value in variables.items() if value in text]
            what = f"the value of {names[0]}" if names else "what looks like a key or a password"
            raise UsageError(f"{path.relative_to(stage)} holds {what}. Take it out of the results before packing.")


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def _archive(stage: Path, output: Path) -> None:
    """A tar.gz without times, owners or modes of this machine."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted(p for p in stage.rglob("*") if p.is_file()):
            info = tarfile.TarInfo(str(Path("package") / path.relative_to(stage)))
            info.size, info.mode = path.stat().st_size, 0o644
            tar.addfile(info, io.BytesIO(path.read_bytes()))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(gzip.compress(buffer.getvalue(), mtime=0))


if __name__ == "__main__":
    sys.exit(main())
