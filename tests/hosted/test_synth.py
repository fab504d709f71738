"""Synth's hosted MIPRO against a backend on loopback: both modes, every form of a result, every fault, equal terms."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import run_scaling_experiment as script
from scaling.data import load_benchmark, make_splits
from scaling.hosted.client import SynthError
from scaling.hosted.settings import LOCAL, backend_of, is_local
from scaling.hosted.tunnel import tunnel
from scaling.testing import Body, ScriptedServer, last_user_message
from scaling.types import Cell, HostedSettings, UsageError
from tests.conftest import SMALL
from tests.support import toy as toy_benchmark
from tests.support.files import lines, read, tree
from tests.support.hosted import KEYS, PLANTED, program_in, record_in
from tests.support.sweeps import MODELS, lasting


def rows_of(record: dict[str, Any], parts: tuple[str, ...]) -> set[str]:
    """The messages of the rows that a toy cell was splits, found again from its record."""
    cell = Cell(**record["cell"])
    bench = load_benchmark("toy", toy_benchmark.config(), "sample")
    splits = make_splits(bench, cell.train_size, cell.val_size, cell.select_size, cell.test_size, cell.run, cell.seed)
    assert splits.sha256 == record["data"]["sha256"]
    return {row["message"] for part in parts for row in getattr(splits, part)}


def asked_in(bodies: list[Body]) -> set[str]:
    texts = [last_user_message(body) for body in bodies]
    return {message for message in toy_benchmark.truth() if any(message in text for text in texts)}


# A job that goes well


@pytest.mark.parametrize("steps", [1, 3])
def test_an_offline_job_finds_the_planted_instruction(
    command: Callable, backend: Callable, tmp_path: Path, steps: int
) -> None:
    fake = backend()
    assert script.main(command(steps=str(steps))) == 0
    record, roles = record_in(tmp_path), program_in(tmp_path)
    assert record["status"] == "ok"
    assert roles["classifier"]["after"] == PLANTED
    assert [role for role, text in roles.items() if text["before"] != text["after"]] == ["classifier"]
    assert record["final_score"] == record["hosted"]["best_score"] == 1.0 > record["baseline_score"]

    # Rollouts are those of the app, calls and tokens those that its calls reported; nothing is known of the rest.
    (job,) = fake.jobs.values()
    used = record["usage"]["optimize"]
    assert record["rollouts_used"] == job.rollouts == 5 + 4 * 5  # bootstrap rows, four candidates
    assert used["calls"] == len(fake.forwarded) == steps * job.rollouts
    made = [call for call in lines(next(tmp_path.rglob("calls.jsonl"))) if call["phase"] == "optimize"]
    assert sum(call["prompt_tokens"] for call in made) == used["prompt_tokens"] > 0
    assert [call["role"] for call in made].count("classifier") == job.rollouts
    assert used["list_cost_usd"] is used["billed_cost_usd"] is record["proposal_usage"] is None
    assert record["hosted"]["job_id"] == job.id

    # What was submitted is what the app sends: every call matched the messages of initial_prompt.
    assert fake.unmatched == 0
    stages = ["analyzer", "reasoner", "classifier"][-1 if steps == 1 else 0 :]
    assert [module["module_id"] for module in job.mipro["modules"]] == stages
    assert record["at_equal_calls_score"] == (1.0 if steps == 1 else None)


def test_test_rows_never_reach_the_job_and_are_the_same_for_all(
    command: Callable, backend: Callable, tmp_path: Path
) -> None:
    fake = backend()
    assert script.main(command(optimizers="none synth_mipro mipro_instruct mipro")) == 0
    records = [read(path) for path in tmp_path.rglob("results.json")]
    assert [record["status"] for record in records] == ["ok"] * 4
    for name in ("test_sha256", "sha256"):
        assert len({record["data"][name] for record in records}) == 1
    for name in ("model", "rollout_budget", "temperature", "select_size", "optimizer_model"):
        assert len({record["cell"][name] for record in records}) == 1
    asked = asked_in(fake.forwarded)
    assert rows_of(records[0], ("select",)) < asked < rows_of(records[0], ("train", "select"))
    assert not asked & rows_of(records[0], ("test", "check"))
    scored = {
        program: {line["id"] for line in lines(path) if line["program"] == program}
        for path in tmp_path.rglob("predictions.jsonl")
        for program in ("baseline", "final")
    }
    assert scored["baseline"] == scored["final"]


def test_an_online_job_runs_its_rollouts_here(command: Callable, backend: Callable, tmp_path: Path) -> None:
    fake = backend()
    assert script.main(command(mode="online", rollouts="4")) == 0
    record = record_in(tmp_path)
    assert (record["status"], record["cell"]["synth_mode"], record["cell"]["synth_rollouts"]) == ("ok", "online", 4)
    assert record["rollouts_used"] == 40 == sum(map(len, fake.jobs[record["hosted"]["job_id"]].rewards.values()))
    assert program_in(tmp_path)["classifier"]["after"] == PLANTED
    assert record["hosted"]["best_score"] == 1.0
    assert asked_in(fake.forwarded) == rows_of(record, ("train",))
    assert fake.jobs[record["hosted"]["job_id"]].status == "cancelled"  # else it would wait for rollouts for ever


@pytest.mark.parametrize("form", ["text", "text_replacements", "results", "state", "best_candidate"])
def test_the_best_prompt_is_taken_from_wherever_it_is(
    command: Callable, backend: Callable, tmp_path: Path, form: str
) -> None:
    backend(form=form)
    assert script.main(command()) == 0
    assert program_in(tmp_path)["classifier"]["after"] == PLANTED
    assert record_in(tmp_path)["hosted"]["best_score"] == 1.0


@pytest.mark.parametrize("fault", ["no_policy_optimization", "429", "no_key_upload", "no_interceptor_key"])
def test_versions_and_busy_servers_are_no_obstacle(
    command: Callable, backend: Callable, tmp_path: Path, fault: str
) -> None:
    fake = backend(fault=fault)
    assert script.main(command(optimizers="synth_mipro")) == 0
    assert program_in(tmp_path)["classifier"]["after"] == PLANTED
    (job,) = fake.jobs.values()
    assert ("task_app_api_key" in job.learning) == (fault == "no_key_upload")


def test_what_a_program_cannot_hold_of_a_prompt_is_noted(command: Callable, backend: Callable, tmp_path: Path) -> None:
    backend(fault="changes_users")
    assert script.main(command()) == 0
    assert "around the inputs" in record_in(tmp_path)["hosted"]["note"]
    assert program_in(tmp_path)["classifier"]["after"] == PLANTED


def test_calls_that_do_not_say_their_tokens_are_unknown_and_not_0(
    command: Callable, backend: Callable, tmp_path: Path
) -> None:
    backend(usage=False)
    assert script.main(command()) == 0
    used = record_in(tmp_path)["usage"]["optimize"]
    assert used["calls"] == 25
    assert used["prompt_tokens"] is used["completion_tokens"] is None


def test_a_job_that_has_ended_is_not_paid_for_twice(command: Callable, backend: Callable, tmp_path: Path) -> None:
    fake = backend()
    assert script.main(command()) == 0
    (path,) = tmp_path.rglob("results.json")
    first = read(path)
    path.unlink()  # as after a kill while the test rows were scored
    assert script.main(command()) == 0
    assert len(fake.jobs) == 1
    assert lasting(read(path)) == lasting(first)

    assert script.main([*command(), "--fresh"]) == 0
    assert len(fake.jobs) == 2


def test_jobs_side_by_side_share_one_key_that_nobody_named(
    command: Callable, backend: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENVIRONMENT_API_KEY", "")
    fake = backend()
    assert script.main(command(runs="2")) == 0
    records = [read(path) for path in tmp_path.rglob("results.json")]
    assert [record["status"] for record in records] == ["ok", "ok"] and len(fake.jobs) == 2
    assert len(os.environ["ENVIRONMENT_API_KEY"]) == 64 and len(fake.app_keys) == 1
    assert not [
        name for name, content in tree(tmp_path).items() if os.environ["ENVIRONMENT_API_KEY"].encode() in content
    ]
    assert records[0]["data"]["sha256"] != records[1]["data"]["sha256"]


# Money and keys


def test_a_job_may_spend_what_was_set_aside_for_it(
    command: Callable, backend: Callable, server: ScriptedServer, tmp_path: Path
) -> None:
    fake = backend()
    (tmp_path / "mine.toml").write_text(MODELS.format(url=server.url))
    priced = {"models_file": "mine.toml", "models": "toy/priced", "api_base": None}
    assert script.main([*command(**priced, max_cost="0.01"), "--output-dir", "small"]) == 3
    stopped = record_in(tmp_path / "small")
    assert (stopped["status"], stopped["final_score"], fake.jobs) == ("budget", None, {})

    assert script.main(command(**priced, max_cost="5")) == 0
    record = record_in(tmp_path / "out")
    (job,) = fake.jobs.values()
    hosted = record["hosted"]
    assert job.learning["termination_config"] == {
        "max_rollouts": 40, "max_trials": 6, "max_seconds": 3600, "max_cost_usd": hosted["max_cost_usd"],
    }  # fmt: skip
    used = record["usage"]["optimize"]
    list_cost = used["prompt_tokens"] * 3e-6 + used["completion_tokens"] * 11e-6
    assert hosted["rollouts_list_cost_usd"] == pytest.approx(list_cost)
    assert list_cost < hosted["max_cost_usd"] < 5
    spent = read(tmp_path / "out" / "sweep.json")["spent_usd"]
    assert spent == pytest.approx(list_cost + record["usage"]["evaluate"]["billed_cost_usd"])


@pytest.mark.parametrize("options", [{}, {"fault": "repeats_keys"}, {"fault": "no_key_upload"}], ids=str)
def test_no_key_is_ever_written(
    command: Callable, backend: Callable, tmp_path: Path, capsys: pytest.CaptureFixture, options: dict
) -> None:
    backend(**options)
    script.main(command())
    shown = capsys.readouterr()
    for key in KEYS.values():
        assert key not in shown.out + shown.err
        assert not [name for name, content in tree(tmp_path).items() if key.encode() in content]


def test_a_quick_tunnel_gives_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "cloudflared"
    fake.write_text(
        '#!/bin/sh\necho "$@" > said\necho "INF | https://two-words.trycloudflare.com |" >&2\nexec sleep 60\n'
    )
    fake.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with tunnel("http://127.0.0.1:4321") as public:
        assert public == "https://two-words.trycloudflare.com"
        assert "--url http://127.0.0.1:4321" in (tmp_path / "said").read_text()
    fake.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(SynthError, match="--task-app-url"), tunnel("http://127.0.0.1:4321"):
        pass


def test_which_backend_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    for named, local, meant in (
        (None, False, "https://api.usesynth.ai"), (None, True, LOCAL), ("https://a.example/api/", False, "https://a.example"),
        ("https://a.example", True, LOCAL), ("http://localhost:8001", True, "http://localhost:8001"),
    ):  # fmt: skip
        monkeypatch.delenv("SYNTH_BACKEND_URL", raising=False)
        if named is not None:
            monkeypatch.setenv("SYNTH_BACKEND_URL", named)
        assert backend_of(local) == meant
    monkeypatch.setenv("SYNTH_BACKEND_URL", "")  # the key would go to Synth, where it may not be meant to go
    with pytest.raises(UsageError, match="SYNTH_BACKEND_URL is not an http address"):
        backend_of(False)
    assert is_local(HostedSettings(LOCAL)) and not is_local(HostedSettings("https://localhost.example"))


def test_cells_from_before_hosted_jobs_are_the_cells_they_were() -> None:
    cell = Cell(benchmark="b", pipeline="chain", steps=1, optimizer="gepa", model="m", optimizer_model="m")
    assert cell.cell_id == "10f06bf196a0292a"
    online = replace(cell, synth_mode="online")
    assert online.cell_id != cell.cell_id


def test_one_cell_from_python(command: Callable, backend: Callable, server: ScriptedServer, tmp_path: Path) -> None:
    backend()
    keywords = SMALL | {"optimizer": "synth_mipro", "output_dir": tmp_path / "cell", "api_base": server.url}
    record = asyncio.run(script.run_single_experiment(**keywords))
    assert (record["status"], record["final_score"]) == ("ok", 1.0)
