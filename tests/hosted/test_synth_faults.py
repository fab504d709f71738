"""Hosted jobs that fail, are interrupted or are killed: no score, and no second bill."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import analyze_results
import run_scaling_experiment as script
from scaling.hosted.client import SynthClient
from tests.support.files import read
from tests.support.hosted import PLANTED, program_in, record_in

long = pytest.mark.skipif("CHAOS" not in os.environ, reason="starts and kills a command: make chaos")


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


def test_a_submission_without_an_answer_is_found_by_its_name(
    command: Callable, backend: Callable, tmp_path: Path
) -> None:
    fake = backend(fault="hanging_submit")
    assert script.main(command(timeout="0.3")) == 0
    assert len(fake.jobs) == 1 and record_in(tmp_path)["hosted"]["job_id"] in fake.jobs


def test_a_submission_without_an_answer_is_not_sent_twice(
    command: Callable, backend: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = backend(fault="hanging_submit")
    monkeypatch.setattr(SynthClient, "find", lambda self, name: None)  # a backend that lists no jobs
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


@pytest.mark.parametrize("ended", [False, True], ids=["running", "ended well"])
def test_a_kill_before_the_id_came_finds_the_job_by_its_name(
    command: Callable, killed: Callable, tmp_path: Path, ended: bool
) -> None:
    fake, argv = killed("hangs_and_never_ends")
    (job,) = fake.jobs.values()
    assert read(next(tmp_path.rglob("hosted_job.json")))["facts"]["job_id"] is None
    if ended:
        job.status = "succeeded"
    else:
        fake.fault = "never_ends"
    assert script.main(argv) == (0 if ended else 1)
    assert record_in(tmp_path)["hosted"]["job_id"] == job.id
    assert len(fake.jobs) == 1 and job.status == ("succeeded" if ended else "cancelled")


@long
def test_a_kill_during_the_submission_is_told(command: Callable, killed: Callable, tmp_path: Path) -> None:
    fake, argv = killed("hanging_submit")
    fake.fault = "no_list"
    assert script.main(argv) == 1 and len(fake.jobs) == 1
    assert "may have taken: look for it there" in record_in(tmp_path)["error"]["message"]
    assert script.main([*argv, "--retry-failed"]) == 0 and len(fake.jobs) == 2
