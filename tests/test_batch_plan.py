"""What the plan and the checks say of `--batch evaluate`, and the prices that it counts with."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import run_scaling_experiment as script
from scaling.batch_offers import at_batch_price, batch_offer
from scaling.models import find_model, load_registry
from scaling.testing import BatchServer
from scaling.types import EXIT_OK
from tests.support.batches import BATCH, write_batch_study
from tests.support.files import lines
from tests.support.sweeps import run

REGISTRY = load_registry()


def dollars(text: str) -> list[float]:
    return [float(usd) for usd in re.findall(r"\$([\d.]+)", text)]


@pytest.mark.parametrize(
    ("name", "share", "hours"),
    [
        ("openai/gpt-5.4-mini", 0.5, 24), ("anthropic/claude-haiku-4-5", 0.5, 24), ("gemini/gemini-3.8-flash", 0.5, 48),
        ("groq/openai/gpt-oss-20b", 1.0, 24),  # the table does not say what it costs there
    ],
)  # fmt: skip
def test_a_batch_costs_what_the_table_says_and_else_what_a_live_call_costs(name: str, share: float, hours: int) -> None:
    model = find_model(name, REGISTRY)
    live, batch = (one.cost(1000, 100, 0, 50) for one in (model, at_batch_price(model)))
    assert batch == pytest.approx(share * live)
    assert batch_offer(model).hours == hours
    assert at_batch_price(model).id == model.id


def test_models_without_a_batch_api_have_none() -> None:
    for name in ("local/smollm2-135m", "together_ai/openai/gpt-oss-120b"):
        assert batch_offer(find_model(name, REGISTRY)) is None


def test_the_plan_shows_both_prices_and_the_longest_wait(tmp_path: Path) -> None:
    with BatchServer() as server:
        flags = write_batch_study(tmp_path, server.url, [1, 3], ["none", "gepa"])
        code, said = run([*flags, *BATCH, "--dry-run"], tmp_path / "out")
        assert code == EXIT_OK and not server.raw_requests
    (line,) = [line for line in said.splitlines() if line.startswith("with --batch evaluate")]
    assert "3 rounds of at most 24 h, so 72 h at the longest" in line
    low, high, batch_low, batch_high, live_low, live_high = dollars(line)
    assert (batch_low, batch_high) == pytest.approx((live_low / 2, live_high / 2), abs=1e-4)
    (total,) = [dollars(line) for line in said.splitlines() if line.startswith("in total")]
    assert (low, high) == pytest.approx((total[0] - batch_low, total[1] - batch_high), abs=2e-4)


def test_without_batch_the_plan_says_nothing_of_it(tmp_path: Path) -> None:
    with BatchServer() as server:
        flags = write_batch_study(tmp_path, server.url, [1], ["none"])
        assert "--batch" not in run([*flags, "--dry-run"], tmp_path / "out")[1]


def test_a_sweep_without_any_batch_api_is_refused(command: Callable, refused: Callable) -> None:
    said = refused([*command(models="together_ai/openai/gpt-oss-120b"), *BATCH])
    assert "no model of this sweep has a batch API" in said and "groq" in said


@pytest.mark.parametrize("flags", [["--batch", "everything"], [*BATCH, "--engine", "dask"]])
def test_what_batch_cannot_do_is_refused(command: Callable, refused: Callable, flags: list[str]) -> None:
    assert "--batch" in refused([*command(), *flags])


def test_models_without_a_batch_api_are_asked_live_and_named(
    command: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with BatchServer() as server:
        models = "openai/scripted together_ai/openai/gpt-oss-120b"
        argv = command(models=models, api_base=server.url, test_size="4")
        assert script.main([*argv, *BATCH]) == EXIT_OK
        said = capsys.readouterr().out
        assert "no batch API, so all calls are live: together_ai/openai/gpt-oss-120b" in said
        assert len(server.batches) == 1
        live = server.calls - server.batch_calls
    calls = [call for path in tmp_path.rglob("calls.jsonl") for call in lines(path)]
    assert live == len(calls) / 2 == server.batch_calls
    assert sorted(call["latency_seconds"] is None for call in calls) == [False] * live + [True] * live


def test_a_batch_price_of_ones_own_is_read_and_a_wrong_one_refused(
    command: Callable, refused: Callable, tmp_path: Path
) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        '[models."groq/openai/gpt-oss-20b"]\n'
        "batch_price = {input_usd_per_million = 0.0375, output_usd_per_million = 0.15}\n"
    )
    model = find_model("groq/openai/gpt-oss-20b", load_registry(own))
    assert model.input_usd_per_million == 0.075  # the table's live price stays
    assert at_batch_price(model).cost(1000, 100) == pytest.approx(model.cost(1000, 100) / 2)
    own.write_text('[models."groq/openai/gpt-oss-20b"]\nbatch_price = {input_usd_per_million = -1.0}\n')
    assert "batch_price" in refused([*command(), "--models-file", str(own)])
