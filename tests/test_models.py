"""Models by name: LiteLLM's table, entries with sizes and other names, globs and sizes, and models that end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

import run_scaling_experiment as script
from scaling import models, price_table
from scaling.llm.cache import Cache
from scaling.llm.gateway import Gateway
from scaling.llm.lm import make_lm
from scaling.llm.meter import Meter
from scaling.model_names import SIZES, expand_names
from scaling.models import PRICES, Model, find_model, known_model, load_registry
from scaling.planning import plan, study
from scaling.types import UsageError

REGISTRY = load_registry()
TABLE = {
    name: entry
    for name, entry in json.loads(price_table._path().read_text(encoding="utf-8")).items()
    if entry.get("mode") == "chat" and "*" not in name
}
PLAN_ONLY = ["--study", "pipeline", "--benchmarks", "superglue", "--steps", "1", "--optimizers", "none", "--runs", "1",
             "--data", "sample", "--dry-run"]  # fmt: skip
LIVING = {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "max_input_tokens": 8000, "mode": "chat"}


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict], None]]:
    """Puts a made-up table in the place of LiteLLM's."""

    def put(entries: dict[str, dict]) -> None:
        path = tmp_path / "table.json"
        path.write_text(json.dumps({"sample_spec": {}} | entries))
        monkeypatch.setattr(price_table, "_path", lambda: path)
        forget()

    def forget() -> None:
        price_table._table.cache_clear()
        price_table.look_up.cache_clear()

    yield put
    monkeypatch.undo()
    forget()


def test_every_chat_model_of_the_table_works_by_its_name_or_has_ended(tmp_path: Path) -> None:
    gateway = Gateway(Cache(tmp_path / "cache.sqlite"))
    living = 0
    for name, entry in TABLE.items():
        try:
            model = find_model(name, REGISTRY)
        except UsageError as error:
            assert "ended on" in str(error), name
            assert entry["deprecation_date"] <= str(models.today()), name
            continue
        living += 1
        lm = make_lm(model, gateway, Meter("c"), 0, 0.7)  # DSPy refuses some settings for some models
        assert (lm.kwargs.get("temperature") is None) == (not model.takes_temperature), name
        if (price := entry.get("input_cost_per_token")) is not None and "input_cost_per_request" not in entry:
            assert model.input_usd_per_million == pytest.approx(1e6 * price), name
    assert living > 2000


def test_facts_of_a_name_are_the_tables_and_say_which_table() -> None:
    for name, key in (("gpt-4o-mini", "gpt-4o-mini"), ("groq/openai/gpt-oss-20b", "groq/openai/gpt-oss-20b")):
        model = known_model(name, REGISTRY)
        names = ("input_cost_per_token", "cache_read_input_token_cost", "output_cost_per_token")
        listed = [None if TABLE[key].get(name) is None else 1e6 * TABLE[key][name] for name in names]
        assert [getattr(model, name) for name in PRICES[:3]] == pytest.approx(listed)
        assert model.context_length == TABLE[key]["max_input_tokens"]
        assert model.price_source.startswith("litellm 1.")


def test_the_table_is_read_without_litellm_and_without_dspy() -> None:
    code = "import sys, scaling.models as m; m.find_model('gpt-4o-mini', m.load_registry()); "
    code += "print({'litellm', 'dspy'} & {*sys.modules})"
    folder = Path(script.__file__).parent
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    assert said.stdout == "set()\n"


def test_what_an_entry_says_beats_the_table(table: Callable, tmp_path: Path) -> None:
    table({"gpt-4o": LIVING | {"litellm_provider": "openai"}})
    path = tmp_path / "models.toml"
    path.write_text(
        '[models."openai/gpt-4o"]\ninput_usd_per_million = 7.0\noutput_usd_per_million = 8.0\n'
        'price_source = "my contract"\n[models."mine"]\nroute = "openai/gpt-4o"\napi_base = "http://127.0.0.1:9/v1"\n'
    )
    registry = load_registry(path)
    own = find_model("gpt-4o", registry)
    assert (own.input_usd_per_million, own.cached_input_usd_per_million, own.price_source) == (7.0, None, "my contract")
    assert (own.context_length, own.key_env) == (8000, "OPENAI_API_KEY")
    served = find_model("mine", registry)
    assert (served.input_usd_per_million, served.key_env, served.context_length) == (None, None, 8000)


@pytest.mark.parametrize(
    ("name", "model_id"),
    [
        ("gpt-4o-mini", "openai/gpt-4o-mini"),
        ("claude-haiku", "anthropic/claude-haiku-5-5"),
        ("claude-sonnet", "anthropic/claude-sonnet-5-5"),
        ("claude-opus", "anthropic/claude-opus-5-5"),
        ("claude-haiku-4-5", "anthropic/claude-haiku-4-5"),
        ("llama-70b", "replicate/meta/llama-3-70b-instruct"),
        ("llama-3.1-8b-instant", "groq/llama-3.1-8b-instant"),
        ("gpt-oss-20b", "groq/openai/gpt-oss-20b"),
        ("groq/gpt-oss-20b", "groq/openai/gpt-oss-20b"),
        ("groq/gpt-oss-120b", "groq/openai/gpt-oss-120b"),
        ("openai/gpt-5.4-mini", "openai/gpt-5.4-mini"),
    ],
)
def test_names_of_the_seeds_and_old_ids_resolve(name: str, model_id: str) -> None:
    assert known_model(name, REGISTRY).id == model_id
    assert expand_names([name, model_id], REGISTRY) == [model_id]


def test_no_name_means_two_models_and_every_entry_has_a_reason() -> None:
    names = [name for model in REGISTRY.values() for name in (model.id, *model.aliases)]
    assert len(names) == len(set(names))
    for model in REGISTRY.values():
        assert model.parameters_billions or model.aliases or model.status == "retired", model.id


def test_sizes_that_no_maker_published_are_not_called_published() -> None:
    for name in ("openai/gpt-4o-mini", "anthropic/claude-3-opus-20240229"):
        assert REGISTRY[name].parameters_status == "assumed"
        assert "assumed by" in REGISTRY[name].parameters_source
    closed = [model for model in REGISTRY.values() if model.key_env in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY")]
    assert closed and "published" not in {model.parameters_status for model in closed}


def test_a_glob_gives_the_entries_that_can_be_called() -> None:
    assert expand_names(["anthropic/*"], REGISTRY) == [
        "anthropic/claude-haiku-5-5", "anthropic/claude-sonnet-5-5", "anthropic/claude-opus-5-5",
    ]  # fmt: skip
    assert len(expand_names(["Qwen/*"], REGISTRY)) == 7
    both = ["groq/openai/gpt-oss-20b", "groq/openai/gpt-oss-120b"]
    assert expand_names(["gpt-oss-20b", "groq/*gpt-oss-*"], REGISTRY) == both


def test_a_size_gives_published_and_assumed_ones_and_all_sizes_share_no_model() -> None:
    by_size = {size: expand_names([f"size:{size}"], REGISTRY) for size in SIZES}
    assert "openai/gpt-4o-mini" in by_size["small"] and "novita/qwen/qwen2.5-7b-instruct" in by_size["small"]
    assert "groq/openai/gpt-oss-20b" in by_size["medium"] and "groq/openai/gpt-oss-120b" in by_size["large"]
    everything = sum(by_size.values(), [])
    known = [m for m in REGISTRY.values() if m.parameters_billions is not None and m.status == "current"]
    assert sorted(everything) == sorted(m.id for m in known)


def test_a_model_that_is_not_known_stays_as_it_is() -> None:
    assert expand_names(["openai/mine", "openai/mine"], REGISTRY) == ["openai/mine"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("size:tiny", ["size 'tiny'", "small, medium, large"]),
        ("grok/*", ["model 'grok/*'", "groq/openai/gpt-oss-20b"]),
        ("gpt-54-mini", ["did you mean 'gpt-5.4-mini'?", "--models-file"]),
        ("gpt-4", ["'openai/gpt-4' ended on 2026-10-23", "--models openai/"]),
        ("llama-3.1-8b-instant", ["is retired", "--models groq/openai/gpt-oss-20b"]),
        ("text-embedding-3-small", ["answers no chat requests", "embedding"]),
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
    assert script.main(["--models", "anthropic/*", "Qwen/*7B*", *PLAN_ONLY]) == 0
    assert "4 cells to run on 4 models" in capsys.readouterr().out


def test_your_own_server_takes_the_place_of_an_entry_and_keeps_its_size() -> None:
    model = find_model("qwen2.5-7b", REGISTRY, "http://127.0.0.1:9/v1")
    assert (model.api_base, model.parameters_billions) == ("http://127.0.0.1:9/v1", 7.61)


def ending(names: list[str], registry: models.Registry, days: int, day: date) -> list[str]:
    """The models of these names that have ended by then, or end within so many days of it."""
    found = [known_model(name, registry) for name in names]
    return [model.id for model in found if model.ends_within(days, day)]


def called_by_studies() -> list[str]:
    """The task and optimizer models of every shipped study, all phases."""
    called = set()
    for name in study.study_names():
        shipped = study.load_study(name)
        parts = [study.narrow(shipped, phase=phase) for phase in shipped.phases] or [shipped]
        for part in parts:
            for cell in plan.expand(part, script.BENCHMARK_CONFIG, REGISTRY):
                called |= {cell.model, cell.optimizer_model}
    return sorted(called)


def test_no_model_of_a_shipped_study_has_ended_or_ends_within_30_days_of_today() -> None:
    """Fails by itself with time, which it is for: then a study needs another model."""
    called = called_by_studies()
    assert len(called) >= 15
    assert ending(called, REGISTRY, 30, date.today()) == []
    unpriced = [name for name in called if not known_model(name, REGISTRY).has_price]
    assert unpriced == []


END = date(2030, 6, 30)


@pytest.mark.parametrize(
    ("days_before", "within_30", "warned", "refused"),
    [(61, False, False, False), (60, False, True, False), (31, False, True, False), (30, True, True, False),
     (1, True, True, False), (0, True, True, True), (-1, True, True, True)],
)  # fmt: skip
def test_the_days_before_the_end_of_a_model(
    table: Callable,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    days_before: int,
    within_30: bool,
    warned: bool,
    refused: bool,
) -> None:
    ends = {"deprecation_date": str(END), "litellm_provider": "openai", "successor_model": "newer"}
    table({"older": LIVING | ends, "newer": LIVING | {"litellm_provider": "openai"}})
    day = END - timedelta(days=days_before)
    monkeypatch.setattr(models, "today", lambda: day)
    assert ending(["older", "newer"], {}, 30, day) == (["openai/older"] if within_30 else [])
    assert script.main(["--models", "older", *PLAN_ONLY]) == (2 if refused else 0)
    said = capsys.readouterr()
    if refused:
        assert "'openai/older' ended on 2030-06-30" in said.err and "Use --models openai/newer" in said.err
    else:
        assert ("openai/older ends on 2030-06-30; its successor is openai/newer" in said.out) == warned


def test_a_successor_that_has_ended_too_is_passed_over(table: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = LIVING | {"litellm_provider": "openai", "deprecation_date": "2029-01-01"}
    table({
        "a": gone | {"successor_model": "b"}, "b": gone | {"successor_model": "c"},
        "c": LIVING | {"litellm_provider": "openai"}, "x": gone | {"successor_model": "y"},
        "y": gone | {"successor_model": "x"}, "z": gone,
    })  # fmt: skip
    monkeypatch.setattr(models, "today", lambda: END)
    with pytest.raises(UsageError, match="Use --models openai/c"):
        find_model("a", {})
    for name in ("x", "z"):
        with pytest.raises(UsageError, match="Use another"):
            find_model(name, {})


def test_a_model_on_a_server_of_ones_own_does_not_end(table: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    table({"a": LIVING | {"litellm_provider": "openai", "deprecation_date": "2029-01-01"}})
    monkeypatch.setattr(models, "today", lambda: END)
    assert find_model("a", {}, "http://127.0.0.1:9/v1").id == "openai/a"


def test_retired_entries_have_successors_that_live() -> None:
    retired = [model for model in REGISTRY.values() if model.status == "retired"]
    assert len(retired) == 5
    assert all(models.living_successor(model, REGISTRY) is not None for model in retired)


def test_a_price_of_reasoning_of_its_own_is_billed_and_bounds_the_cost() -> None:
    prices = {"input_usd_per_million": 1.0, "output_usd_per_million": 4.0}
    dearer = Model("a/b", "a/b", **prices, reasoning_usd_per_million=6.0)
    assert dearer.cost(100, 50, 0, 30) == pytest.approx((100 + 20 * 4 + 30 * 6) / 1e6)
    assert dearer.highest_cost(100, 50) == pytest.approx((100 + 50 * 6) / 1e6)
    cheaper = Model("a/b", "a/b", **prices, reasoning_usd_per_million=3.0)
    assert cheaper.highest_cost(100, 50) == pytest.approx((100 + 50 * 4) / 1e6)
