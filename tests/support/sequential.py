"""A small sequential study on the scripted server with planted skill: two benchmarks, chains of 1, 3 and 5 steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import run_scaling_experiment as script
from scaling.data import load_benchmark
from scaling.testing import ScriptedServer
from tests.support.planted import Chance, golds_of, planted_answers

STUDY = """
name = "waves"
benchmarks = ["banking77", "heartdisease"]
steps = {steps}
optimizers = ["bootstrap"]
models = ["toy/planted"]
runs = 3
rollout_budget = 20
train_size = 6
val_size = 10
test_size = 12
data = "sample"
{more}

[labels_by_benchmark]
banking77 = 4
"""
MODELS = """
[models."toy/planted"]
route = "openai/planted"
api_base = "{url}"
sends_seed = true
input_usd_per_million = 3.0
output_usd_per_million = 11.0
price_date = "today"
price_source = "made up"
"""


def rising(request: object) -> float:
    """Five steps are nearly always right and one step nearly never: decided at the first look."""
    return {1: 0.05, 3: 0.5, 5: 0.95}[request.steps]


def level(request: object) -> float:
    """No number of steps changes anything."""
    return 0.6


@dataclass(frozen=True)
class Planted:
    """The study on its server: the server, and the flags that name the study and its model."""

    server: ScriptedServer
    flags: list[str]


@contextmanager
def planted_study(
    folder: Path, chance: Chance, steps: tuple[int, ...] = (1, 5), more: str = 'design = "sequential"'
) -> Iterator[Planted]:
    """The study in files of this folder, while its server runs. more: lines of its file."""
    golds = []
    for name, labels in (("banking77", 4), ("heartdisease", None)):
        golds += golds_of(load_benchmark(name, script.BENCHMARK_CONFIG[name], "sample", labels))
    folder.mkdir(parents=True, exist_ok=True)
    with ScriptedServer(answer=planted_answers(golds, chance)) as server:
        (folder / "waves.toml").write_text(STUDY.format(steps=list(steps), more=more))
        (folder / "models.toml").write_text(MODELS.format(url=server.url))
        flags = ["--study", str(folder / "waves.toml"), "--models-file", str(folder / "models.toml")]
        yield Planted(server, flags)
