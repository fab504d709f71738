#!/usr/bin/env python
"""Write a TOML file for each cell of a study: benchmarks/<name>/configs/<optimizer>_<n>step.toml.

A cell's file has the format of a study's, so `run_scaling_experiment.py --config FILE` runs it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from scaling import plan
from scaling.optimizers import is_hosted
from scaling.pipelines import step_name
from scaling.types import EXIT_OK, EXIT_USAGE, UsageError

ROOMS = Path(__file__).parent / "benchmarks"
SIZES = ("rollout_budget", "train_size", "val_size", "test_size", "temperature", "data")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code (0 well, 2 usage)."""
    options = parse(argv)
    try:
        study = plan.phases_of(plan.load_study(options.study))[0]
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    for path in write_configs(study, options.output_dir):
        print(f"wrote {path}")
    return EXIT_OK


def write_configs(study: plan.Study, folder: Path) -> list[Path]:
    """One file for each benchmark, pipeline, optimizer and number of steps; returns the paths."""
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


def cell_toml(study: plan.Study, benchmark: str, pipeline: str, steps: int, optimizer: str) -> str:
    """A study of one cell, as TOML text (JSON's strings, numbers and lists are TOML's)."""
    fields = {
        "name": f"{benchmark}_{optimizer}_{step_name(pipeline, steps)}",
        "benchmarks": [benchmark],
        "pipelines": [pipeline],
        "steps": [steps],
        "optimizers": [optimizer],
        "models": study.models_by_optimizer.get(optimizer, study.models),
        "runs": study.runs,
    }
    if study.optimizer_model:
        fields["optimizer_model"] = study.optimizer_model
    fields |= {name: getattr(study, name) for name in SIZES}
    labels = study.labels_by_benchmark.get(benchmark, study.labels)
    if labels is not None:
        fields["labels"] = labels
    if study.closed_book:
        fields["closed_book"] = True
    if is_hosted(optimizer):
        fields["synth_mode"] = study.synth_mode
        fields |= {"synth_rollouts": study.synth_rollouts} if study.synth_rollouts is not None else {}
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in fields.items())
    return f"# One cell of the study '{study.name}'; run it with: run_scaling_experiment.py --config FILE\n{lines}\n"


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument(
        "--study", default="pipeline", metavar="NAME|FILE.toml", help="whose cells (pipeline); of phases, the first"
    )
    parser.add_argument("--output-dir", type=Path, default=ROOMS, metavar="DIR", help="default: benchmarks/")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
