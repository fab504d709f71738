"""The program that a cell is given: read from a cell, from a program that DSPy saved, or from a text file.

Of a program, what optimizers change is taken: the instruction and the worked examples of each step. The fields' names
must be those of the cell's own program; their descriptions stay the benchmark's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import msgspec

from scaling.planning.optimizers import TRANSFER
from scaling.records.codec import RecordError, decode, encode
from scaling.records.store import PROGRAM, CellFiles, read_checked
from scaling.run.context import OptimizerContext
from scaling.run.cores import fresh_core
from scaling.run.pipelines import FeedbackFunction
from scaling.run.start_program import Prompt, StartProgram
from scaling.types import Benchmark, Cell, PlannedCell, UsageError

FLAG = "--start-from"
ROLE_LINE = re.compile(r"^\[([A-Za-z_][\w.]*)\][ \t]*$", re.MULTILINE)
ONLY_STEP = ""  # stands for the name of the only step in a text that names none
LARGEST_TEXT_BYTES = 1_000_000


class SavedField(msgspec.Struct):
    """A field of a step's signature, as DSPy saves it."""

    prefix: str = ""


class SavedSignature(msgspec.Struct):
    """A step's signature, as DSPy saves it."""

    instructions: str
    fields: list[SavedField] = []


class SavedStep(msgspec.Struct):
    """What is read of a step in a program that DSPy saved."""

    signature: SavedSignature
    demos: list[dict[str, Any]] = []


def read_start(name: str) -> StartProgram:
    """The program in a cell's folder, a .json file or a text. Raises UsageError, in one line, for what is none."""
    path = Path(name) / PROGRAM if Path(name).is_dir() else Path(name)
    cell = _cell_of(path)
    if not path.is_file():
        what = "this folder holds no program" if Path(name).is_dir() else "there is no such file"
        raise UsageError(f"{FLAG} {name}: {what}. Give a cell's folder, a {PROGRAM}, or a text file.")
    prompts = _saved(path) if path.suffix == ".json" else _written(path)
    return StartProgram(name, prompts, cell)


def fitted_start(start: StartProgram, program: dspy.Module, cell: PlannedCell) -> StartProgram:
    """The start program with the names of the cell's own steps; UsageError where it is for another program."""
    steps = dict(program.named_predictors())
    prompts = dict(start.prompts)
    if set(prompts) == {ONLY_STEP} and len(steps) == 1:
        prompts = {next(iter(steps)): prompts[ONLY_STEP]}
    if ONLY_STEP in prompts:
        named = " ".join(f"[{name}]" for name in steps)
        raise UsageError(f"{FLAG} {start.file}: '{_program(cell)}' has several steps. Write a line {named} above each.")
    _check_steps(start.file, prompts, list(steps), cell)
    for name, prompt in prompts.items():
        own = tuple(saved["prefix"] for saved in steps[name].signature.dump_state()["fields"])
        if prompt.fields is not None and prompt.fields != own:
            raise UsageError(
                f"{FLAG} {start.file}: its signature is '{_fields(prompt.fields)}', that of {cell.benchmark} is "
                f"'{_fields(own)}'. A program runs on benchmarks of its own signature only."
            )
    return replace(start, prompts=prompts)


def core_of(
    cell: PlannedCell, bench: Benchmark, start: StartProgram | None, feedback: FeedbackFunction | None = None
) -> dspy.Module:
    """The core of the cell's program before optimization: with the prompts that it is given, if any.

    Where a program is transferred, that is the plain one, which the given one is measured against.
    """
    core = fresh_core(cell, bench, feedback)
    return core if cell.optimizer == TRANSFER.name else started(core, start)


def started(program: dspy.Module, start: StartProgram | None) -> dspy.Module:
    """The program with the prompts that it is given, changed in place; as it is without any."""
    for name, predictor in program.named_predictors():
        if start is not None and name in start.prompts:
            prompt = start.prompts[name]
            predictor.signature = predictor.signature.with_instructions(prompt.instruction)
            predictor.demos = [dict(demo) for demo in prompt.demos]
    return program


def transfer(context: OptimizerContext) -> dspy.Module:
    """The program that the cell is given, as it is: nothing is optimized."""
    return started(context.core.deepcopy(), context.start)


def _cell_of(path: Path) -> Cell | None:
    """The cell that the program is from; None for a file by itself. UsageError for a cell that has no program yet."""
    files = CellFiles(path.parent)
    if path.name != PROGRAM or files.owner() is None:
        return None
    record = files.read_record()
    if record is None or record.status != "ok":
        status = "it is not settled" if record is None else f"its status is {record.status}"
        raise UsageError(f"{FLAG} {path.parent}: this cell has no program, as {status}. Run its sweep to its end.")
    return record.cell


def _saved(path: Path) -> dict[str, Prompt]:
    """The steps of a program that DSPy saved."""
    try:
        parts = read_checked(path, dict[str, Any])
        steps = {
            name: decode(encode(part), SavedStep)
            for name, part in parts.items() if isinstance(part, Mapping) and "signature" in part
        }  # fmt: skip
    except RecordError as error:
        raise UsageError(f"{FLAG} {path}: it is no program that DSPy saved ({error}).") from None
    if not steps:
        raise UsageError(f"{FLAG} {path}: it holds no step of a program. Give a {PROGRAM} of a cell, or a text file.")
    return {
        name: Prompt(step.signature.instructions, step.demos, tuple(part.prefix for part in step.signature.fields))
        for name, step in steps.items()
    }


def _written(path: Path) -> dict[str, Prompt]:
    """The instructions in a text: one for the only step, or one under each line '[step]'."""
    try:
        if path.stat().st_size > LARGEST_TEXT_BYTES:
            raise UsageError(f"{FLAG} {path}: it is larger than {LARGEST_TEXT_BYTES:,} bytes.")
        text = path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError:
        raise UsageError(f"{FLAG} {path}: it is not UTF-8 text. Save it as UTF-8.") from None
    parts = ["", ONLY_STEP, text] if not ROLE_LINE.match(text) else ROLE_LINE.split(text)
    names, texts = parts[1::2], [part.strip() for part in parts[2::2]]
    if not all(texts):
        raise UsageError(f"{FLAG} {path}: there is no instruction{_for(names[texts.index('')])}. Write one.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"{FLAG} {path}: [{twice}] is there twice. Write one instruction for each step.")
    return {name: Prompt(text) for name, text in zip(names, texts, strict=True)}


def _check_steps(file: str, prompts: Mapping[str, Prompt], steps: list[str], cell: PlannedCell) -> None:
    """Raise UsageError where the program sets a step that the cell has not, or DSPy's lacks one."""
    is_whole = any(prompt.fields is not None for prompt in prompts.values())
    if set(prompts) - set(steps) or (is_whole and set(steps) - set(prompts)):
        raise UsageError(
            f"{FLAG} {file}: its steps are {', '.join(prompts)}; those of '{_program(cell)}' are {', '.join(steps)}. "
            f"Give the --pipelines and --steps of the program."
        )


def _program(cell: PlannedCell) -> str:
    return f"{cell.benchmark} {cell.pipeline} {cell.steps}"


def _fields(prefixes: tuple[str, ...]) -> str:
    return ", ".join(prefix.removesuffix(":") for prefix in prefixes)


def _for(name: str) -> str:
    return f" under [{name}]" if name else ""
