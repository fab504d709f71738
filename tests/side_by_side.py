"""Twelve planted studies on the scripted server, fixed and sequential: what each found, in how many calls and dollars.

`python -m tests.side_by_side` runs the whole program 24 times, in minutes, and writes simulations/side_by_side.csv.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import run_scaling_experiment as script
from scaling.analysis.answers import evidence_of, tests_of
from scaling.analysis.loading import load
from scaling.data import load_benchmark
from scaling.testing import ScriptedServer
from simulations.study_rows import ASKED_OF_WHOLE, SIDES, WholeStudy, write_sides
from tests.support.planted import Request, golds_of, planted_answers
from tests.support.sequential import MODELS

BENCHMARKS = {"banking77": 10, "heartdisease": None, "hotpotqa": None}  # name -> labels
STUDY = """
name = "planted"
benchmarks = ["banking77", "heartdisease", "hotpotqa"]
steps = [1, 3, 5]
optimizers = ["bootstrap"]
models = ["toy/planted"]
runs = 3
rollout_budget = 20
train_size = 5
val_size = 5
test_size = 40
data = "sample"
design = "{design}"

[labels_by_benchmark]
banking77 = 10
"""


@dataclass(frozen=True)
class Truth:
    """Chances of a right answer at 1, 3 and 5 steps; reasoning: the same on hotpotqa, where it differs."""

    name: str
    scores: tuple[float, float, float]
    reasoning: tuple[float, float, float] | None = None

    def chance(self, request: Request) -> float:
        of = self.reasoning if self.reasoning and request.benchmark == "hotpotqa" else self.scores
        return dict(zip((1, 3, 5), of, strict=True))[request.steps]


TRUTHS = (
    Truth("no effect", (0.5, 0.5, 0.5)),
    Truth("no effect, near the top", (0.9, 0.9, 0.9)),
    Truth("rise of 10", (0.5, 0.55, 0.6)),
    Truth("rise of 20", (0.5, 0.6, 0.7)),
    Truth("rise of 40", (0.4, 0.6, 0.8)),
    Truth("rise of 20 up to 3 steps", (0.5, 0.7, 0.7)),
    Truth("rise of 50 up to 3 steps", (0.3, 0.8, 0.8)),
    Truth("rise of 40 that falls again", (0.4, 0.8, 0.4)),
    Truth("fall of 20", (0.7, 0.6, 0.5)),
    Truth("fall of 40", (0.8, 0.6, 0.4)),
    Truth("rise of 40 in reasoning only", (0.5, 0.5, 0.5), (0.4, 0.6, 0.8)),
    Truth("rise of 40, in reasoning of 60", (0.4, 0.6, 0.8), (0.2, 0.5, 0.8)),
)


def sides_of(truths: Iterable[Truth], folder: Path) -> Iterable[WholeStudy]:
    """Each study by both designs, one after the other."""
    golds = []
    for name, labels in BENCHMARKS.items():
        golds += golds_of(load_benchmark(name, script.BENCHMARK_CONFIG[name], "sample", labels))
    for number, truth in enumerate(truths):
        with ScriptedServer(answer=planted_answers(golds, truth.chance)) as server:
            for design in SIDES:
                home = folder / f"{number}-{design}"
                home.mkdir(parents=True)
                (home / "models.toml").write_text(MODELS.format(url=server.url))
                (home / "planted.toml").write_text(STUDY.format(design=design))
                flags = ["--study", str(home / "planted.toml"), "--models-file", str(home / "models.toml")]
                assert script.main([*flags, "--output-dir", str(home / "results")]) == 0
                yield _found(truth.name, design, home / "results")


def _found(truth: str, design: str, results: Path) -> WholeStudy:
    loaded = load([results])
    rows, _ = tests_of(evidence_of(loaded))
    verdicts = {row.asks: row.verdict for row in rows if row.asks in ASKED_OF_WHOLE}
    cells = loaded.cells[loaded.cells["status"] == "ok"]

    def total(what: str) -> float:
        return float(pd.concat([cells[f"optimize_{what}"], cells[f"evaluate_{what}"]]).astype(float).sum())

    return WholeStudy(truth, design, len(cells), int(total("calls")), total("list_cost_usd"),
                      tuple(verdicts[name] for name in ASKED_OF_WHOLE))  # fmt: skip


def main(write: Callable[[list[WholeStudy]], None] = write_sides) -> None:
    """All studies; what the runs print goes to the standard error stream."""
    found: list[WholeStudy] = []
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        for side in sides_of(TRUTHS, Path(folder)):
            found.append(side)
            write(found)


if __name__ == "__main__":
    main()
