"""The registry: sizes and prices with their sources, names that resolve, globs and sizes, retired models."""

from __future__ import annotations

import importlib.metadata
import json
from importlib.util import find_spec
from pathlib import Path

import pytest

import run_scaling_experiment as script
from scaling.models import SIZES, expand_names, find_model, load_registry
from scaling.types import UsageError

REGISTRY = load_registry()
PRICES = {
    "input_usd_per_million": "input_cost_per_token",
    "cached_input_usd_per_million": "cache_read_input_token_cost",
    "output_usd_per_million": "output_cost_per_token",
}
# Priced from elsewhere, or under another name in that table.
NOT_IN_LITELLM = {
    "groq/llama-3.1-8b-instant",
    "groq/llama-3.3-70b-versatile",
}

PLAN_ONLY = ["--study", "pipeline", "--benchmarks", "superglue", "--steps", "1", "--optimizers", "none", "--runs", "1",
             "--data", "sample", "--dry-run"]  # fmt: skip


def litellm_table() -> dict[str, dict]:
    """The price table of the installed litellm; skips where there is none."""
    found = find_spec("litellm")
    path = Path(found.origin).parent / "model_prices_and_context_window_backup.json" if found else None
    if path is None or not path.exists():
        pytest.skip("the installed litellm has no price table")
    return json.loads(path.read_text(encoding="utf-8"))


def test_prices_are_those_of_the_installed_price_table() -> None:
    table = litellm_table()
    missing, differences = set(), []
    for model in REGISTRY.values():
        if not model.has_price or model.is_local:
            continue
        theirs = table.get(model.route) or table.get(model.route.split("/", 1)[1]) or table.get(model.id)
        if theirs is None:
            missing.add(model.id)
            continue
        for ours, name in PRICES.items():
            price = getattr(model, ours)
            listed = None if theirs.get(name) is None else 1e6 * theirs[name]
            if price != pytest.approx(listed):
                differences.append(f"{model.id} {ours}: {price} here, {listed} there")
    version = importlib.metadata.version("litellm")
    assert not differences, f"litellm {version}:\n" + "\n".join(differences)
    assert missing == NOT_IN_LITELLM


def test_prices_from_that_table_say_so() -> None:
    for model in REGISTRY.values():
        if model.has_price and not model.is_local and model.id not in NOT_IN_LITELLM:
            assert model.price_source.startswith("litellm "), model.id


@pytest.mark.parametrize(
    ("name", "model_id"),
    [
        ("gpt-4o-mini", "openai/gpt-4o-mini"),
        ("gpt-4o", "openai/gpt-4o"),
        ("claude-haiku", "anthropic/claude-haiku-4-5"),
        ("claude-sonnet", "anthropic/claude-sonnet-4-6"),
        ("claude-opus", "anthropic/claude-opus-4-6"),
        ("llama-70b", "replicate/meta/llama-3-70b-instruct"),
        ("llama-3.1-8b-instant", "groq/llama-3.1-8b-instant"),
        ("gpt-oss-20b", "groq/gpt-oss-20b"),
    ],
)
def test_names_of_the_seeds_resolve(name: str, model_id: str) -> None:
    assert find_model(name, REGISTRY).id == model_id
    assert expand_names([name, model_id], REGISTRY) == [model_id]


def test_no_name_means_two_models() -> None:
    names = [name for model in REGISTRY.values() for name in (model.id, *model.aliases)]
    assert len(names) == len(set(names))


def test_a_retired_model_names_one_that_can_be_called() -> None:
    retired = [model for model in REGISTRY.values() if model.status == "retired"]
    assert {"openai/gpt-4", "anthropic/claude-3-opus-20240229"} <= {model.id for model in retired}
    for model in retired:
        assert REGISTRY[model.successor].status == "current"
        with pytest.raises(UsageError, match=f"Use --models {model.successor}"):
            find_model(model.id, REGISTRY)


def test_sizes_that_no_maker_published_are_not_called_published() -> None:
    for name in ("openai/gpt-4o-mini", "anthropic/claude-3-opus-20240229"):
        assert REGISTRY[name].parameters_status == "assumed"
        assert "assumed by" in REGISTRY[name].parameters_source
    closed = [model for model in REGISTRY.values() if model.key_env in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")]
    assert "published" not in {model.parameters_status for model in closed}
    assert all(model.context_length for model in REGISTRY.values())


def test_a_glob_gives_the_models_that_can_be_called() -> None:
    assert expand_names(["anthropic/*"], REGISTRY) == [
        "anthropic/claude-haiku-4-5", "anthropic/claude-sonnet-4-6", "anthropic/claude-opus-4-6",
    ]  # fmt: skip
    assert len(expand_names(["Qwen/*"], REGISTRY)) == 7
    assert expand_names(["gpt-oss-20b", "groq/gpt-oss-*"], REGISTRY) == ["groq/gpt-oss-20b", "groq/gpt-oss-120b"]


def test_a_size_gives_published_and_assumed_ones_and_all_sizes_share_no_model() -> None:
    by_size = {size: expand_names([f"size:{size}"], REGISTRY) for size in SIZES}
    assert "openai/gpt-4o-mini" in by_size["small"] and "groq/llama-3.1-8b-instant" in by_size["small"]
    assert "groq/gpt-oss-20b" in by_size["medium"] and "replicate/meta/llama-3-70b-instruct" in by_size["medium"]
    assert by_size["large"] == ["groq/gpt-oss-120b"]
    everything = sum(by_size.values(), [])
    known = [m for m in REGISTRY.values() if m.parameters_billions is not None and m.status == "current"]
    assert sorted(everything) == sorted(m.id for m in known)


def test_a_model_that_is_not_in_the_registry_stays_as_it_is() -> None:
    assert expand_names(["openai/mine", "openai/mine"], REGISTRY) == ["openai/mine"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("size:tiny", ["size 'tiny'", "small, medium, large"]),
        ("grok/*", ["model 'grok/*'", "groq/gpt-oss-20b"]),
        ("gpt-4", ["'openai/gpt-4' is retired", "--models openai/gpt-4.1"]),
    ],
)
def test_a_name_that_gives_no_model_is_refused_in_one_line(
    name: str, says: list[str], capsys: pytest.CaptureFixture
) -> None:
    assert script.main(["--models", name, *PLAN_ONLY]) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1
    assert not [words for words in says if words not in said], said


def test_globs_and_sizes_on_the_command_line(capsys: pytest.CaptureFixture) -> None:
    assert script.main(["--models", "anthropic/*", "size:large", *PLAN_ONLY]) == 0
    assert "4 cells to run on 4 models" in capsys.readouterr().out


def test_your_own_server_takes_the_place_of_an_entry_and_keeps_its_size() -> None:
    model = find_model("qwen2.5-7b", REGISTRY, "http://127.0.0.1:9/v1")
    assert (model.api_base, model.parameters_billions) == ("http://127.0.0.1:9/v1", 7.61)
