"""Each study as a whole, on the scripted server with planted skill: what its plan foretells is what is found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import analyze_results
import run_scaling_experiment as script
from scaling.analysis.findings import Findings
from scaling.analysis.hypotheses import REASONING
from scaling.analysis.test_rows import TestRow
from scaling.data import load_benchmark
from scaling.model_names import expand_names
from scaling.models import known_model, load_registry
from scaling.planning.study import Study, load_study, narrow, phases_of, study_names
from scaling.records.codec import as_plain
from scaling.records.record import PlannedAnswer
from scaling.records.store import PLAN, read_plan, read_records
from scaling.sandbox import deno
from scaling.testing import ScriptedServer
from tests.support.chaos import only_in_chaos
from tests.support.planted import Request, golds_of, planted_answers

CHAOS = bool(os.environ.get("CHAOS"))
REAL_ROWS = Path(__file__).parent.parent.parent / "shared" / "data"
# A model of the study as it stands in the registry, at the scripted server's address.
ENTRY = """
[models."{id}"]
route = "openai/{name}"
api_base = "{url}"
sends_seed = true
aliases = {aliases}
input_usd_per_million = {input}
output_usd_per_million = {output}
price_date = "today"
price_source = "made up"
{size}
"""
REGISTRY = load_registry(None)
FIRST, AMPLITUDE, ALPHA = 0.3, 0.05, 0.4
STEPS = {1: 0.0, 2: 0.1, 3: 0.18, 4: 0.21, 5: 0.24}  # what a chain adds to FIRST
REASONING_FACTOR = 2.0  # a chain on a reasoning benchmark adds so many times as much
WORTH = 0.001  # dollars a right answer
ENDS = 0.85  # share of a question's intervals that must hold what was planted; 95 % are expected
ENOUGH = 8  # intervals for a share; each of fewer is held to half its width more, as one of 20 may miss


def chance(request: Request) -> float:
    """Right at first with FIRST; more steps add STEPS, the first review AMPLITUDE size^ALPHA, the next half of it."""
    return FIRST + gain_of_steps(request.benchmark, request.steps) + gain_of_turns(request.model, request.turn)


def gain_of_steps(benchmark: str, steps: int) -> float:
    is_reasoning = script.BENCHMARK_CONFIG[benchmark].get("task_class") == REASONING
    return STEPS[steps] * (REASONING_FACTOR if is_reasoning else 1.0)


def gain_of_turns(model: str, turn: int) -> float:
    """The closed models, whose sizes nobody publishes, do as if they had 10 billion parameters."""
    size = known_model(model.replace("--", "/"), REGISTRY).parameters_billions or 10.0
    return AMPLITUDE * size**ALPHA * (0.0, 1.0, 1.5, 1.5, 1.5)[turn]


@contextmanager
def planted(study: Study, folder: Path, source: str) -> Iterator[list[str]]:
    """Flags that send a study's models to a server with planted skill."""
    parts = phases_of(replace(study, phase="all") if study.phases else study)
    golds = []
    for name in {name for part in parts for name in part.benchmarks}:
        if source == "sample" or (Path(source) / name).is_dir():
            golds += golds_of(load_benchmark(name, script.BENCHMARK_CONFIG[name], source))
    named = {name for part in parts for name in part.models} | {part.optimizer_model for part in parts} - {None}
    named |= {name for part in parts for names in part.models_by_optimizer.values() for name in names}
    with ScriptedServer(answer=planted_answers(golds, chance)) as server:
        entries = [entry(name, server.url) for name in sorted(expand_names(sorted(named), REGISTRY))]
        (folder / "models.toml").write_text("\n".join(entries))
        yield ["--study", study.name, "--data", source, "--models-file", str(folder / "models.toml")]


def entry(name: str, url: str) -> str:
    model = known_model(name, REGISTRY)
    size = f'parameters_billions = {model.parameters_billions}\nparameters_source = "as listed"\n'
    size += f'parameters_status = "{model.parameters_status}"'
    return ENTRY.format(
        id=model.id, name=model.id.replace("/", "--"), url=url, aliases=list(model.aliases),
        input=model.input_usd_per_million or 0.0, output=model.output_usd_per_million or 0.0,
        size=size if model.parameters_billions else "",
    )  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What a study's plan foretold, and what was found."""

    foretold: list[PlannedAnswer]
    found: Findings


def outcome(name: str, folder: Path, flags: list[str]) -> Outcome:
    """Plan, run and analyse a study with these flags beside those of its server."""
    results = folder / "results"
    with planted(load_study(name), folder, "sample") as to_server:
        assert script.main([*to_server, *flags, "--output-dir", str(results)]) == 0
    return Outcome(read_plan(results / PLAN).questions, analyze_results.find([results], WORTH, False))


def check(outcome: Outcome) -> None:
    """What was called answerable is, what was not is refused for the same reason, and intervals hold the truth."""
    found = {answer.question.name: answer for answer in outcome.found.answers}
    assert [answer.question for answer in outcome.foretold] == list(found)
    for foretold in outcome.foretold:
        answer = found[foretold.question]
        if foretold.question == "RQ4":  # the plan did not know what an answer is worth
            continue
        # What only the run can tell: whether an optimizer used its budget, whether calls were lost.
        of_the_run = {reason for reason in answer.missing if reason.startswith("not compared")}
        assert bool(foretold.answerable) == answer.answerable or of_the_run, foretold
        if not answer.answerable:
            assert set(answer.missing) - of_the_run <= set(foretold.missing)
        if foretold.question == "RQ3":  # its row is the most extreme of all pairs, so its p counts, not its interval
            assert all(row.p is None or row.p > 0.001 for row in answer.rows), answer.rows
            continue
        rows = [row for row in answer.rows if row.answerable and row.ci_low is not None]
        truths = [(row, truth(row, outcome.found)) for row in rows]
        truths = [(row, true) for row, true in truths if true is not None]
        inside = [holds(row, true, 0.0 if len(truths) >= ENOUGH else 0.5) for row, true in truths]
        assert np.mean(inside or [1.0]) >= ENDS, (foretold.question, truths)
        for row, true in truths:
            if row.detectable and true is not None and abs(true) > 2 * row.detectable:
                assert row.verdict in ("supported", "better", "corrects", "on these rows: higher"), (row, true)


def holds(row: TestRow, true: float, wider: float) -> bool:
    """Whether the row's interval, with so many half-widths more at each end, holds the true value."""
    assert row.ci_low is not None and row.ci_high is not None
    more = wider * (row.ci_high - row.ci_low) / 2
    return row.ci_low - more <= true <= row.ci_high + more


def truth(row: TestRow, found: Findings) -> float | None:
    """The effect that was planted for a row; None where it has no single number."""
    names = [name for name in script.BENCHMARK_CONFIG if name in row.comparison]
    rise = {name: [gain_of_steps(name, steps) for steps in (1, 3, 5)] for name in names}
    if row.asks == "H1":
        return float(np.mean([five - one for one, _, five in rise.values()]))
    if row.asks == "H2":
        return float(np.mean([(three - one) / 2 - (five - three) / 2 for one, three, five in rise.values()]))
    if row.asks == "H4":
        reasoning = {name for name in names if script.BENCHMARK_CONFIG[name].get("task_class") == REASONING}
        by_class = [[five - one for name, (one, _, five) in rise.items() if (name in reasoning) is yes]
                    for yes in (True, False)]  # fmt: skip
        return float(np.mean(by_class[0]) - np.mean(by_class[1]))
    if row.asks in ("models", "size") and "turn " in row.comparison:
        return None
    if row.asks in ("H3", "optimizers", "improvement", "mipro", "models", "size"):
        return 0.0
    if row.asks == "controls" and row.comparison.endswith(" - repeat"):  # a repeat's answer is the last draw's
        (name,) = names
        return gain_of_steps(name, int(row.comparison.split()[1]))
    if row.asks == "correction":
        cell = next(cell.entry for cell in found.turned if row.comparison.startswith(f"{cell.entry.name}:"))
        return gain_of_turns(cell.series.model, cell.steps - 1)
    if row.asks == "RQ1":
        sized = found.gains[found.gains["status"] == "published"].groupby("model").first()
        gains = [gain_of_turns(model, int(turns) - 1) for model, turns in sized["turns"].items()]
        return float(np.polyfit(np.log10(sized["size"]), gains, 1)[0])
    return ALPHA if row.asks == "exponent" else None


STUDIES = [name for name in study_names() if "local/smollm2-135m" not in load_study(name).models]
NO_SANDBOX = not deno.available()
# What a study's cells are narrowed to where there is no hour for them: enough for most of its questions.
SMALL = {
    "pipeline": ["--benchmarks", "banking77", "hotpotqa", "--steps", "1", "5", "--runs", "2",
                 "--rollout-budget", "20", "--train-size", "5", "--val-size", "10", "--test-size", "40"],
    "self-correction-open": ["--benchmarks", "superglue", "mathbench", "--runs", "1", "--test-size", "14"],
}  # fmt: skip
LONG_PILOTS = {"self-correction", "self-correction-open", "pipeline-controls", "pipeline-as-published"}
# The full grid, with few rows and small budgets.
FEW_ROWS = ["--rollout-budget", "20", "--train-size", "5", "--val-size", "10", "--test-size", "40"]


def in_words(name: str) -> list[str]:
    """Flags that leave out the benchmarks whose answers are programs, which take seconds of a core each."""
    benchmarks = {name for part in phases_of(load_study(name)) for name in part.benchmarks}
    return ["--benchmarks", *sorted(benchmarks - {"humaneval"})] if "humaneval" in benchmarks else []


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.skipif(not CHAOS and name in LONG_PILOTS, reason="long: make chaos"))
        for name in STUDIES
    ],
)
def test_the_pilot_of_a_study_ends_as_its_plan_foretells(name: str, tmp_path: Path) -> None:
    """One or two rows: what cannot be answered is not, and where scores happen not to vary, neither is the rest."""
    done = outcome(name, tmp_path, ["--pilot", *in_words(name)])
    assert done.foretold and (done.found.results.cells["status"] != "error").all()
    found = {answer.question.name: answer for answer in done.found.answers}
    assert [answer.question for answer in done.foretold] == list(found)
    for foretold in done.foretold:
        if not foretold.answerable and foretold.question != "RQ4":
            assert not found[foretold.question].answerable, foretold


@pytest.mark.parametrize("name", [pytest.param("pipeline", marks=only_in_chaos), "self-correction-open"])
def test_a_small_study_answers_what_its_plan_calls_answerable(name: str, tmp_path: Path) -> None:
    done = outcome(name, tmp_path, SMALL[name])
    assert sum(bool(answer.answerable) for answer in done.foretold) >= 3
    check(done)


@pytest.mark.skipif(not CHAOS or NO_SANDBOX, reason="many minutes, and programs in the sandbox: make chaos")
@pytest.mark.parametrize("name", STUDIES)
def test_a_study_at_its_full_grid_answers_what_its_plan_calls_answerable(name: str, tmp_path: Path) -> None:
    study = load_study(name)
    flags = [*FEW_ROWS, *(["--phase", "all"] if study.phases else [])]
    # humaneval's sample fills no more.
    check(outcome(name, tmp_path, [*flags, "--test-size", "14"] if "humaneval" in study.benchmarks else flags))


@pytest.mark.skipif(not CHAOS or not REAL_ROWS.is_dir(), reason="minutes, on real rows: make chaos")
def test_the_open_weights_study_finds_the_planted_exponent_on_real_rows(tmp_path: Path) -> None:
    results = tmp_path / "results"
    study = narrow(load_study("self-correction-open"), benchmarks=["superglue"])
    with planted(study, tmp_path, str(REAL_ROWS)) as flags:
        narrowed = ["--benchmarks", "superglue", "--runs", "1", "--output-dir", str(results)]
        assert script.main([*flags, *narrowed]) == 0
    found = Outcome(read_plan(results / PLAN).questions, analyze_results.find([results], WORTH, False))
    check(found)
    fits = found.found.fits
    laws = fits[(fits["family"] == "A size^alpha") & fits["benchmark"].str.contains("gain")]
    assert len(laws) and ((laws["ci_low"] <= ALPHA) & (laws["ci_high"] >= ALPHA)).all()


@only_in_chaos
def test_every_turn_of_self_correction_has_the_planted_skill(tmp_path: Path) -> None:
    results = tmp_path / "results"
    study = load_study("self-correction")
    sizes = ["--test-size", "4", "--runs", "1", *in_words("self-correction")]
    with planted(study, tmp_path, "sample") as flags:
        assert script.main([*flags, *sizes, "--output-dir", str(results)]) == 0
    records = [as_plain(record) for _, record in read_records([results])]
    records = [record for record in records if record["cell"]["pipeline"] == "self_correct"]
    assert len(records) == len(study.models) * 3 and {record["status"] for record in records} == {"ok"}
    assert all(record["error_rates"]["parse"] == 0 for record in records)
    answers = sum(record["n"] for record in records)
    for turn in range(study.steps[0]):
        right = sum(record["turns"]["scores"][turn] * record["n"] for record in records) / answers
        expected = sum((FIRST + gain_of_turns(r["cell"]["model"], turn)) * r["n"] for r in records) / answers
        assert abs(right - expected) < 4 * (0.25 / answers) ** 0.5, (turn, right, expected)
