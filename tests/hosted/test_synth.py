"""Synth's hosted MIPRO against a backend on loopback: both modes, every form of a result, every fault, equal terms."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

import analyze_results
import run_scaling_experiment as script
from scaling.analysis import mipro_table
from scaling.data import load_benchmark, make_splits
from scaling.hosted import client as synth_client
from scaling.hosted import tunnel as tunnels
from scaling.hosted.client import SynthError
from scaling.hosted.settings import LOCAL, backend_of, is_local
from scaling.hosted.tunnel import tunnel
from scaling.intervals import newcombe_paired
from scaling.testing import Body, ScriptedServer, last_user_message, whole_prompt
from scaling.testing.synth_backend import SynthBackend
from scaling.types import Cell, HostedSettings
from tests.conftest import SMALL
from tests.support import toy as toy_benchmark
from tests.support.files import lines, read, tree
from tests.support.made_up import record_of
from tests.support.sweeps import MODELS, lasting, start

PLANTED = "Look at the zebra first, then name the label."
PROPOSALS = ["Name a label quickly.", PLANTED, "Say what comes to mind."]
KEYS = {"SYNTH_API_KEY": "synth-key-0123456789", "ENVIRONMENT_API_KEY": "app-key-0123456789"}
FLAGS = {
    "--benchmarks": "toy", "--models": "openai/scripted", "--steps": "1", "--optimizers": "synth_mipro", "--runs": "1",
    "--rollout-budget": "40", "--train-size": "10", "--val-size": "12", "--test-size": "20", "--data": "sample",
    "--output-dir": "out",
}  # fmt: skip


long = pytest.mark.skipif("CHAOS" not in os.environ, reason="starts and kills a command: make chaos")


def skill(body: Body) -> float:
    """The planted instruction makes all answers right."""
    return 1.0 if "zebra" in whole_prompt(body) else 0.35


@pytest.fixture
def command(
    toy: Callable, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[str]]:
    """A command line for a hosted cell, with flags changed (None leaves one out); run in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    for module in (synth_client, tunnels):
        monkeypatch.setattr(module, "MAX_ATTEMPTS", 2)
    server.skill = skill

    def line(**changes: str | None) -> list[str]:
        flags = FLAGS | {"--api-base": server.url}
        flags |= {"--" + name.replace("_", "-"): value for name, value in changes.items()}
        return [word for flag, value in flags.items() if value is not None for word in (flag, *value.split())]

    return line


@pytest.fixture
def backend(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., SynthBackend]]:
    """Starts a backend that forwards to the scripted server, and names it in the environment."""
    running: list[SynthBackend] = []

    def start(**options: Any) -> SynthBackend:
        defaults = {"proposals": PROPOSALS, "key": KEYS["SYNTH_API_KEY"]}
        running.append(SynthBackend(server.url, **defaults | options).__enter__())
        monkeypatch.setenv("SYNTH_BACKEND_URL", running[-1].url)
        return running[-1]

    yield start
    for one in running:
        one.__exit__()


def record_in(folder: Path) -> dict[str, Any]:
    (path,) = folder.rglob("results.json")
    return read(path)


def program_in(folder: Path) -> dict[str, Any]:
    (path,) = folder.rglob("program.json")
    return read(path)["instructions"]


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


# What a user can get wrong


@pytest.fixture
def refused(server: ScriptedServer, tmp_path: Path, capsys: pytest.CaptureFixture) -> Callable[[list[str]], str]:
    """Runs a command line that must be refused before anything is spent, and gives its one line."""

    def run(argv: list[str]) -> str:
        assert script.main(argv) == 2
        said = capsys.readouterr().err
        assert len(said.strip().splitlines()) == 1 and said.startswith("error: "), said
        assert not server.requests and not list(tmp_path.rglob("results.json"))
        return said

    return run


def test_no_key_is_refused_where_nothing_else_could_run(
    command: Callable, refused: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SYNTH_API_KEY")
    monkeypatch.delenv("SYNTH_BACKEND_URL", raising=False)
    said = refused(command())
    assert "SYNTH_API_KEY is not set" in said and "--local" in said


def test_a_wrong_key_is_told_before_any_call(command: Callable, refused: Callable, backend: Callable) -> None:
    fake = backend(fault="401")
    said = refused(command())
    assert "refused SYNTH_API_KEY (401)" in said and not fake.jobs


def test_a_backend_that_is_not_there_is_told_before_any_call(
    command: Callable, refused: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTH_BACKEND_URL", "http://127.0.0.1:1")
    assert "http://127.0.0.1:1 cannot be reached" in refused(command())


def test_a_remote_backend_needs_a_way_to_the_task_app(
    command: Callable, refused: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNTH_BACKEND_URL", "https://synth.example")
    monkeypatch.setenv("PATH", "")
    said = refused(command())
    assert "cloudflared" in said and "--task-app-url" in said and "8015" in said


def test_a_model_that_synth_cannot_call_is_refused(
    command: Callable, refused: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SYNTH_BACKEND_URL", "https://synth.example")
    (tmp_path / "mine.toml").write_text('[models."toy/x"]\nroute = "anthropic/x"\n')
    assert "openai, groq, google" in refused(command(models="toy/x", models_file="mine.toml"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mode": "sideways"}, "mode 'sideways'; possible: offline, online"),
        ({"rollouts": "0"}, "--rollouts 0"),
        ({"trials": "0", "rollout_budget": None}, "--trials 0"),
        ({"trials": "5"}, "--trials and --rollout-budget"),
        ({"optimizers": "none", "mode": "online"}, "--mode is for synth_mipro"),
        ({"optimizers": "none", "rollouts": "3"}, "--rollouts is for synth_mipro"),
        ({"optimizers": "none", "task_app_url": "http://x"}, "--task-app-url is for synth_mipro"),
        ({"job_timeout": "0"}, "--job-timeout 0"),
        ({"task_app_port": "8015"}, "--task-app-port says where --task-app-url leads to"),
        ({"task_app_url": "http://x", "mode": "online"}, "--task-app-url: in online mode"),
        ({"engine": "dask"}, "Type --engine local"),
        ({"task_app_url": "my.host"}, "--task-app-url my.host is not an http address"),
    ],
    ids=str,
)
def test_a_flag_that_means_nothing_is_refused(
    command: Callable, refused: Callable, changes: dict[str, str], says: str
) -> None:
    assert says in refused(command(**changes))


FAILURES = [
    ("rollouts_fail", {}, "a rollout failed with 500"),
    ("job_fails", {}, "ended as failed: the optimizer broke down"),
    ("hanging_poll", {"timeout": "0.3"}, "cannot be reached (ReadTimeout)"),
    ("never_ends", {"job_timeout": "0.4"}, "has not ended within 0.4 s and was cancelled; --job-timeout"),
    ("no_json", {}, "answered no JSON object"),
    ("malformed", {}, "a message must be an object, not list"),
    ("no_prompt", {}, "holds no prompt"),
    ("lacks_stage", {"steps": "2"}, "lacks the stage 'classifier'; it has analyzer"),
    ("lacks_input", {}, "stage 'classifier' lacks the input {message}"),
]


@pytest.mark.parametrize(("fault", "changes", "says"), FAILURES, ids=[fault for fault, *_ in FAILURES])
def test_a_job_that_gives_no_program_is_an_error_and_no_score(
    command: Callable, backend: Callable, tmp_path: Path, fault: str, changes: dict[str, str], says: str
) -> None:
    fake = backend(fault=fault)
    assert script.main(command(**changes)) == 1
    record = record_in(tmp_path)
    message = record["error"]["message"]
    assert says in message and "\n" not in message
    assert (record["status"], record["final_score"], record["baseline_score"]) == ("error", None, None)
    # What was paid for is in the record.
    (job,) = fake.jobs.values()
    assert record["hosted"]["job_id"] == job.id
    assert record["rollouts_used"] >= len(fake.forwarded) / record["cell"]["steps"]
    assert record["usage"]["optimize"]["calls"] >= len(fake.forwarded)
    assert job.status in ("succeeded", "failed", "cancelled")
    assert not list(tmp_path.rglob("hosted_job.json"))  # so that --retry-failed sends another one


def test_a_submission_without_an_answer_is_not_sent_twice(command: Callable, backend: Callable, tmp_path: Path) -> None:
    fake = backend(fault="hanging_submit")
    assert script.main(command(timeout="0.3")) == 1
    assert "(ReadTimeout); it may have taken the job: look there" in record_in(tmp_path)["error"]["message"]
    assert len(fake.jobs) == 1


def test_online_rollouts_that_fail_end_the_job(command: Callable, backend: Callable, tmp_path: Path) -> None:
    fake = backend(fault="rollouts_fail")
    assert script.main(command(mode="online")) == 1
    assert "5 rollouts in a row failed; the last: 500" in record_in(tmp_path)["error"]["message"]
    assert [job.status for job in fake.jobs.values()] == ["cancelled"]


def test_a_task_app_that_cannot_be_reached_is_told(command: Callable, backend: Callable, tmp_path: Path) -> None:
    fake = backend()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    assert script.main(command(task_app_url="http://127.0.0.1:1", task_app_port=port)) == 1
    message = record_in(tmp_path)["error"]["message"]
    assert "cannot be reached at http://127.0.0.1:1" in message and "--task-app-url" in message
    assert not fake.jobs

    address = f"http://127.0.0.1:{port}"
    assert script.main([*command(task_app_url=address, task_app_port=port), "--retry-failed"]) == 0
    assert [job.learning["task_app_url"] for job in fake.jobs.values()] == [address]


def test_a_port_that_is_taken_is_named(command: Callable, backend: Callable, tmp_path: Path) -> None:
    backend()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert script.main(command(task_app_url="http://127.0.0.1:1", task_app_port=str(port))) == 1
    message = record_in(tmp_path)["error"]["message"]
    assert f"port {port} on 127.0.0.1 is taken" in message and f"--task-app-port {port + 1}" in message


def test_ctrl_c_cancels_the_job(command: Callable, backend: Callable, tmp_path: Path) -> None:
    fake = backend(fault="never_ends")

    def interrupt() -> None:
        fake.submitted.wait(60)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert script.main(command()) == 130
    thread.join()
    (job,) = fake.jobs.values()
    assert (record_in(tmp_path)["status"], job.status) == ("interrupted", "cancelled")
    fake.fault = None
    assert script.main(command()) == 0


@pytest.fixture
def killed(server: ScriptedServer, tmp_path: Path, backend: Callable) -> Callable[..., tuple[SynthBackend, list[str]]]:
    """A command that is killed while its job runs, or is submitted: its backend, and the command line for another."""

    def kill(fault: str) -> tuple[SynthBackend, list[str]]:
        fake = backend(fault=fault)
        flags = FLAGS | {"--benchmarks": "banking77", "--labels": "4", "--api-base": server.url}
        words = [word for flag, value in flags.items() if flag != "--output-dir" for word in (flag, value)]
        process = start(words, tmp_path / "out")
        assert (fake.idle if fault == "never_ends" else fake.submitted).wait(60)
        process.kill()
        process.wait()
        process.stdout.close()
        fake.fault = None
        return fake, [*words, "--output-dir", str(tmp_path / "out")]

    return kill


def test_a_kill_never_buys_a_second_job(command: Callable, killed: Callable, tmp_path: Path) -> None:
    fake, argv = killed("never_ends")
    assert read(next(tmp_path.rglob("hosted_job.json")))["facts"]["job_id"] in fake.jobs
    assert script.main(argv) == 1
    assert "after its command was killed" in record_in(tmp_path)["error"]["message"]
    assert [job.status for job in fake.jobs.values()] == ["cancelled"]
    assert script.main(argv) == 1 and len(fake.jobs) == 1
    assert script.main([*argv, "--retry-failed"]) == 0 and len(fake.jobs) == 2


@long
def test_a_job_that_ended_well_after_a_kill_is_taken_and_what_it_used_is_unknown(
    command: Callable, killed: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, argv = killed("never_ends")
    (job,) = fake.jobs.values()
    job.rewards["cand_1"], job.status = [1.0], "succeeded"
    assert script.main(argv) == 0 and len(fake.jobs) == 1
    record = record_in(tmp_path)
    assert record["status"] == "ok" and program_in(tmp_path)["classifier"]["after"] == PLANTED
    assert record["usage"]["optimize"] is record["rollouts_used"] is None and "killed" in record["hosted"]["note"]
    assert analyze_results.main(["--results-dir", "out"]) == 0


@long
def test_a_kill_during_the_submission_is_told(command: Callable, killed: Callable, tmp_path: Path) -> None:
    fake, argv = killed("hanging_submit")
    assert script.main(argv) == 1 and len(fake.jobs) == 1
    assert "may have taken: look for it there" in record_in(tmp_path)["error"]["message"]
    assert script.main([*argv, "--retry-failed"]) == 0 and len(fake.jobs) == 2


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
        ("", False, "https://api.usesynth.ai"), ("", True, LOCAL), ("https://a.example/api/", False, "https://a.example"),
        ("https://a.example", True, LOCAL), ("http://localhost:8001", True, "http://localhost:8001"),
    ):  # fmt: skip
        monkeypatch.setenv("SYNTH_BACKEND_URL", named)
        assert backend_of(local) == meant
    assert is_local(HostedSettings(LOCAL)) and not is_local(HostedSettings("https://localhost.example"))


# The study


@pytest.fixture
def study(command: Callable, tmp_path: Path) -> list[str]:
    (tmp_path / "mine.toml").write_text("compares_mipro = true\n")
    return command(study="mine.toml", optimizers="none synth_mipro mipro_instruct mipro")


def test_without_a_key_the_hosted_arm_is_skipped_and_runs_once_there_is_one(
    study: list[str], backend: Callable, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = os.environ["SYNTH_API_KEY"]
    monkeypatch.delenv("SYNTH_API_KEY")
    monkeypatch.delenv("SYNTH_BACKEND_URL", raising=False)
    assert script.main(study) == 0
    said = capsys.readouterr().out
    assert "skipped 1 cell of synth_mipro: SYNTH_API_KEY is not set" in said
    assert "3 ok, 1 skipped" in said and "skipped (SYNTH_API_KEY is not set" in said
    assert script.main(study) == 0 and "1 skipped" in capsys.readouterr().out

    monkeypatch.setenv("SYNTH_API_KEY", key)
    fake = backend()
    assert script.main(study) == 0
    assert "4 ok" in capsys.readouterr().out and len(fake.jobs) == 1


def table_in(page: str, title: str) -> list[list[str]]:
    body = re.search(rf'<h2 id="t\d+">{title}</h2>.*?<tbody>(.*?)</tbody>', page, re.S).group(1)
    rows = re.findall(r"<tr>(.*?)</tr>", body, re.S)
    return [[unescape(cell) for cell in re.findall(r"<td>(.*?)</td>", row, re.S)] for row in rows]


def points(value: float, sign: bool = False) -> str:
    return f"{100 * value:+.1f}" if sign else f"{100 * value:.1f}"


def ends(pair: tuple[float, float], sign: bool = False) -> str:
    return f"[{points(pair[0], sign)}, {points(pair[1], sign)}]"


NAMES = {
    "synth_mipro": "Synth MIPRO, offline",
    "mipro_instruct": "MIPROv2, instructions",
    "mipro": "MIPROv2, with demos",
}


def test_the_table_is_the_records_and_the_files_say_the_same(
    study: list[str], backend: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    backend()
    assert script.main(study) == 0
    said = capsys.readouterr().out
    assert "note: 12 val rows can tell a score or a difference to ±26 points" in said
    by_name = {read(path)["cell"]["optimizer"]: path.parent for path in tmp_path.rglob("results.json")}
    answers = {
        name: {
            program: np.array(
                [line["score"] for line in lines(home / "predictions.jsonl") if line["program"] == program]
            )
            for program in ("baseline", "final")
        }
        for name, home in by_name.items()
    }

    def row(name: str) -> list[str]:
        record, base, final = read(by_name[name] / "results.json"), *answers[name].values()
        own = record["hosted"]["best_score"] if name == "synth_mipro" else record["val_final_score"]
        wilson, its = (proportion_confint(s * n, n, method="wilson") for s, n in ((final.mean(), 20), (own, 5)))
        gap = own - final.mean()
        around = (
            gap - np.hypot(own - its[0], wilson[1] - final.mean()),
            gap + np.hypot(its[1] - own, final.mean() - wilson[0]),
        )
        used = record["usage"]["optimize"]
        return [
            "toy", "1step", "openai/scripted", NAMES[name], points(final.mean()), ends(wilson),
            points(final.mean() - base.mean(), True), ends(newcombe_paired(base, final), True),
            points(own), points(gap, True), ends(around, True), str(record["rollouts_used"]), str(used["calls"]),
            f"{used['prompt_tokens'] + used['completion_tokens']:,}", "—",
            f"{record['optimize_seconds']:.1f}", "20 x 1",
        ]  # fmt: skip

    plain = answers["none"]["baseline"]
    before = ["toy", "1step", "openai/scripted", "before optimization", points(plain.mean()),
              ends(proportion_confint(plain.sum(), 20, method="wilson")), *["—"] * 10, "20 x 1"]  # fmt: skip
    expected = [before, *(row(name) for name in NAMES)]
    assert [cells[1:-1] for cells in (line.split(" | ") for line in said.splitlines() if line.startswith("| toy"))] == [
        cells[1:-1] for cells in expected
    ]
    assert analyze_results.main(["--results-dir", "out"]) == 0
    page = (tmp_path / "report.html").read_text()
    assert table_in(page, "MIPRO side by side") == expected
    pairs = {cells[0]: cells[2:4] for cells in table_in(page, r"MIPRO implementations \(exploratory\)")}
    first, second = answers["mipro_instruct"]["final"], answers["synth_mipro"]["final"]
    assert pairs["toy 1 chain synth_mipro offline - mipro_instruct"] == [
        points(second.mean() - first.mean(), True), ends(newcombe_paired(first, second), True),
    ]  # fmt: skip
    assert len(pairs) == 3

    (synth,), (dspy,) = (list((tmp_path / "out").glob(f"toy_{name}_mipro_*.json")) for name in ("synth", "dspy"))
    assert all(re.fullmatch(r"toy_\w+_mipro_\d{8}_\d{6}", path.stem) for path in (synth, dspy))
    assert read(synth)["records"] == [read(by_name["synth_mipro"] / "results.json")]
    assert len(read(dspy)["records"]) == 2
    assert script.main(study) == 0  # nothing new: nothing is written again
    assert len(list((tmp_path / "out").glob("toy_*.json"))) == 2


def test_exports_of_one_second_do_not_overwrite_each_other(tmp_path: Path) -> None:
    cells = [Cell("toy", "chain", 1, "synth_mipro", "m", "m", run=run) for run in range(3)]
    records = [record_of(cell, np.ones(4), np.ones(4)) for cell in cells]
    written = [mipro_table.write_exports(tmp_path, [record]) for record in records]
    assert len({path for paths in written for path in paths}) == 3
    assert sorted(read(path)["records"][0]["cell"]["run"] for path in tmp_path.glob("*.json")) == [0, 1, 2]


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
