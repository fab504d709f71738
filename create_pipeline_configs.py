#!/usr/bin/env python
"""Write a TOML file for each cell of a study: benchmarks/<name>/configs/<optimizer>_<n>step.toml.

A cell's file has the format of a study's, so `run_scaling_experiment.py --config FILE` runs it.
"""

from __future__ import annotations

from scaling import interrupt

interrupt.end_at_once(__name__)  # all that it writes is written whole or not at all

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from scaling.arguments import ArgumentParser, one_line_errors
from scaling.pipelines import PIPELINES, step_name
from scaling.planning.optimizers import OPTIMIZERS
from scaling.planning.plan import settings_of
from scaling.planning.study import SIZE_FIELDS, Study, as_written, load_study, phases_of, toml_of
from scaling.schema import SAFE_NAME, shown
from scaling.types import EXIT_OK, UsageError, unknown_name

BENCHMARKS = Path(__file__).parent / "benchmarks"
# Of an installed program, the folder is where it is called.
DEFAULT_FOLDER = BENCHMARKS if (BENCHMARKS.parent / "pyproject.toml").exists() else Path("benchmarks")


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code (0 well, 2 usage)."""
    options = parse(argv)
    for path in write_configs(phases_of(load_study(options.study))[0], options.output_dir):
        print(f"wrote {path}")
    return EXIT_OK


def write_configs(study: Study, folder: Path) -> list[Path]:
    """One file for each benchmark, pipeline, optimizer and number of steps; returns the paths.

    Raises UsageError, before anything is written, for a name that cannot become part of a path.
    """
    check_names(study)
    written = []
    for benchmark in study.benchmarks:
        for steps in study.steps_by_benchmark.get(benchmark, study.steps):
            for pipeline in study.pipelines:
                for optimizer in study.optimizers:
                    path = folder / benchmark / "configs" / f"{optimizer}_{step_name(pipeline, steps)}.toml"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(cell_toml(study, benchmark, pipeline, steps, optimizer), encoding="utf-8")
                    written.append(path)
    return written


def check_names(study: Study) -> None:
    """Raise UsageError for a pipeline or optimizer that is unknown, and for a benchmark that is not a plain name."""
    for what, names, possible in (
        ("pipeline", study.pipelines, list(PIPELINES)),
        ("optimizer", study.optimizers, list(OPTIMIZERS)),
    ):
        for name in names:
            if name not in possible:
                raise unknown_name(what, shown(name), possible, "Fix it in the study.")
    for name in study.benchmarks:
        if not re.search(SAFE_NAME, name):
            raise UsageError(f"the benchmark '{shown(name)}' cannot become the name of a folder. Fix it in the study.")


def cell_toml(study: Study, benchmark: str, pipeline: str, steps: int, optimizer: str) -> str:
    """A study of one benchmark, pipeline, optimizer and number of steps, as TOML text."""
    choices: dict[str, Any] = {
        "name": f"{benchmark}_{optimizer}_{step_name(pipeline, steps)}",
        "benchmarks": [benchmark],
        "pipelines": [pipeline],
        "steps": [steps],
        "optimizers": [optimizer],
        "models": study.models_by_optimizer.get(optimizer, study.models),
        "optimizer_model": study.optimizer_model,
        "runs": study.runs if study.run_list is None else None,
        "run_list": study.run_list,
        **{size: getattr(study, size) for size in SIZE_FIELDS},
        **as_written(settings_of(study, benchmark, pipeline, optimizer)),
    }
    text = toml_of({name: value for name, value in choices.items() if value is not None})
    return f"# One cell of the study '{study.name}'; run it with: run_scaling_experiment.py --config FILE\n{text}"


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = ArgumentParser(__doc__)
    parser.add_argument(
        "--study",
        default="pipeline",
        metavar="NAME|FILE.toml",
        help="the study whose cells are written (pipeline), or its first phase",
    )
    parser.add_argument("--output-dir", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="default: benchmarks/")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
