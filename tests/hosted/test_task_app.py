"""The task app as a backend sees it: endpoints, keys, one example by seed, candidates, what goes wrong."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from scaling.data import load_benchmark, make_splits
from scaling.hosted import task_app
from scaling.hosted.app import create_app
from scaling.hosted.inference import chat_url
from scaling.hosted.rollout import Task
from scaling.hosted.server import serving
from scaling.run.pipelines import MultiStepClassifier
from scaling.testing import ScriptedServer, last_user_message, whole_prompt
from scaling.types import Splits
from tests.support import toy
from tests.support.hosted import MODEL, STAGES

KEY = {"X-API-Key": "app-key"}
ROOT = Path(__file__).parents[2]
ENTRIES = {n: ROOT / f"benchmarks/banking77/pipeline_{n}step/banking77_{n}step_task_app.py" for n in (3, 5)}


@pytest.fixture(scope="module")
def toy_splits() -> Splits:
    return make_splits(load_benchmark("toy", toy.config(), "sample"), train=10, val=12, select=5, test=20, run=0)


def a_task(toy_splits: Splits, steps: int = 3) -> Task:
    bench = load_benchmark("toy", toy.config(), "sample")
    core = MultiStepClassifier(bench.signature, steps, bench.roles)
    return Task(f"toy_{steps}step", bench, core, toy_splits.train + toy_splits.select, MODEL)


@pytest.fixture
def app(toy_splits: Splits, server: ScriptedServer) -> Iterator[httpx.Client]:
    """A client of a 3-step app of the toy benchmark, which has the key."""
    server.skill = lambda body: 1.0
    with (
        serving(create_app(a_task(toy_splits), frozenset(["app-key", "other"]))) as url,
        httpx.Client(base_url=url) as http,
    ):
        http.headers.update(KEY)
        yield http


def request(server: ScriptedServer, seed: Any = 0, **config: Any) -> dict[str, Any]:
    config = {"model": "scripted", "inference_url": server.url} | config
    return {"trace_correlation_id": "trace_1", "env": {"seed": seed}, "policy": {"config": config}}


def test_the_endpoints_say_what_the_contract_says(app: httpx.Client, toy_splits: Splits) -> None:
    assert app.get("/").json() == {"status": "ok", "service": "toy-3step"}
    assert app.head("/").status_code == 200
    assert app.get("/health").json() == {"healthy": True, "auth": {"required": True, "expected_prefix": ""}}
    assert app.post("/done").json() == {"ok": True, "service": "toy-3step"}
    taskset = app.get("/task_info").json()["taskset"]
    assert (taskset["splits"], taskset["sizes"]) == (["train"], {"train": 15})
    one = app.get("/task_info?seed=16").json()
    assert one["task"]["id"] == one["task"]["name"] == "toy_3step"
    assert (one["dataset"]["split"], one["dataset"]["index"]) == ("train", 1)
    assert one["task_metadata"]["modules"] == STAGES[3] and one["limits"]["max_turns"] == 3
    several = app.get("/task_info?seeds=1&seeds=2&seed=3").json()
    assert [info["dataset"]["index"] for info in several] == [3, 1, 2]
    info = app.get("/info").json()
    assert info["service"]["task"] == one["task"] and {"dataset", "rubrics", "inference", "limits"} <= set(info)


@pytest.mark.parametrize("path", ["/health", "/info", "/task_info", "/rollout", "/done"])
def test_each_of_three_headers_opens_it_and_nothing_else_does(app: httpx.Client, path: str) -> None:
    def status(headers: dict[str, str]) -> int:
        method = "POST" if path in ("/rollout", "/done") else "GET"
        return httpx.request(method, f"{app.base_url}{path}", headers=headers).status_code

    opened = 422 if path == "/rollout" else 200
    for headers in (KEY, {"X-API-Keys": "no, other"}, {"Authorization": "Bearer app-key"}):
        assert status(headers) == opened
    for headers in ({}, {"X-API-Key": "app-ke"}, {"X-API-Keys": ","}, {"Authorization": "Basic app-key"}):
        assert status(headers) == 400
    refused = httpx.get(f"{app.base_url}/health").json()
    assert refused["detail"]["error"]["code"] == "unauthorised"


def test_an_app_without_a_key_is_closed_or_said_to_be_open(toy_splits: Splits) -> None:
    with serving(create_app(a_task(toy_splits), frozenset())) as url:
        answer = httpx.get(f"{url}/health", headers=KEY)
    assert (answer.status_code, answer.json()["detail"]["error"]["code"]) == (503, "missing_environment_api_key")
    with serving(create_app(a_task(toy_splits), None)) as url:
        assert httpx.get(f"{url}/health").json()["auth"]["required"] is False


def test_a_rollout_is_one_example_by_seed_with_the_reward_in_both_places(
    app: httpx.Client, server: ScriptedServer, toy_splits: Splits
) -> None:
    rows = toy_splits.train + toy_splits.select
    for seed in (0, 14, 15, 31):
        before = len(server.requests)
        said = app.post("/rollout", json=request(server, seed)).json()
        assert said["trace_correlation_id"] == "trace_1"
        assert said["reward_info"]["outcome_reward"] == said["metrics"]["outcome_reward"] == 1.0
        assert said["reward_info"]["outcome_objectives"] == {"reward": 1.0} and said["metrics"]["mean_return"] == 1.0
        assert (said["success_status"], said["trace"]) == ("success", None)
        made = server.requests[before:]
        assert len(made) == said["metrics"]["num_steps"] == 3
        assert all(rows[seed % 15]["message"] in last_user_message(body) for body in made)
    server.skill = lambda body: 0.0
    assert app.post("/rollout", json=request(server)).json()["reward_info"]["outcome_reward"] == 0.0


def test_no_seed_reaches_a_test_row(app: httpx.Client, server: ScriptedServer, toy_splits: Splits) -> None:
    refused = app.post("/rollout", json=request(server) | {"env": {"seed": 0, "config": {"split": "test"}}})
    assert (refused.status_code, refused.json()["detail"]["error"]["code"]) == (400, "split_not_served")
    assert not server.requests
    for seed in range(40):
        app.post("/rollout", json=request(server, seed))
    asked = "\n".join(last_user_message(body) for body in server.requests)
    assert not [row for row in toy_splits.test + toy_splits.check if row["message"] in asked]
    assert all(row["message"] in asked for row in toy_splits.train + toy_splits.select)


def test_every_call_goes_to_the_inference_url_as_it_was_given(app: httpx.Client, server: ScriptedServer) -> None:
    config = {"temperature": 0.3, "max_completion_tokens": 77}
    said = app.post("/rollout", json=request(server, inference_url=f"{server.url}/trial/c1?cid=x", **config)).json()
    assert said["inference_url"] == f"{server.url}/trial/c1/chat/completions?cid=x"
    assert {(b["model"], b["temperature"], b["max_completion_tokens"]) for b in server.requests} == {
        ("scripted", 0.3, 77)
    }
    usage = said["metadata"]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (server.prompt_tokens, server.completion_tokens)


@pytest.mark.parametrize(
    ("url", "full"),
    [
        ("http://h", "http://h/v1/chat/completions"),
        ("http://h/v1/", "http://h/v1/chat/completions"),
        ("http://h/api/i/v1/t/c", "http://h/api/i/v1/t/c/chat/completions"),
        ("http://h/v1/t/c/chat/completions", "http://h/v1/t/c/chat/completions"),
        ("http://h/v1?cid=a&b=c", "http://h/v1/chat/completions?cid=a&b=c"),
        ("http://h/v1/chat/completions?cid=a", "http://h/v1/chat/completions?cid=a"),
        ("http://h/openai", "http://h/openai/v1/chat/completions"),
    ],
)
def test_an_inference_url_is_completed(url: str, full: str) -> None:
    assert chat_url(url) == full


def test_older_names_are_understood(app: httpx.Client, server: ScriptedServer) -> None:
    body = request(server, inference_url=None, api_base=server.url) | {"mode": "rl", "record": {}}
    body["run_id"] = body.pop("trace_correlation_id")
    body["env"] = {"config": {"seed": 4}}
    said = app.post("/rollout", json=body).json()
    assert said["run_id"] == said["trace_correlation_id"] == "trace_1"
    assert said["reward_info"]["details"]["row"] == 4


def test_candidates_in_the_request_are_honoured_stage_by_stage(app: httpx.Client, server: ScriptedServer) -> None:
    modules = [{"name": name, "instruction_lines": [f"Do as {name}.", "Be brief."]} for name in STAGES[3]]
    modules[2]["few_shots"] = [{"input": "case <999> about kelp", "output_text": "refund"}]
    app.post("/rollout", json=request(server, prompt_template={"prompt_metadata": {"pipeline_modules": modules}}))
    for name, body in zip(STAGES[3], server.requests, strict=True):
        assert f"Do as {name}." in body["messages"][0]["content"]
        assert ("case <999>" in whole_prompt(body)) == (name == "classifier")
    app.post("/rollout", json=request(server))
    assert "Do as" not in "".join(map(whole_prompt, server.requests[3:]))  # nothing is kept from the request before


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"inference_url": None}, 422, "missing_inference_url"),
        ({"inference_url": "http://127.0.0.1:1"}, 502, "upstream_failed"),
        ({"prompt_template": {"sections": [{"role": "system", "content": "Only one."}]}}, 422, "prompt_template"),
        ({"prompt_template": {"what": "is this"}}, 422, "prompt_template"),
    ],
)
def test_what_cannot_be_run_has_its_code_and_no_reward(
    app: httpx.Client, server: ScriptedServer, change: dict, status: int, code: str
) -> None:
    answer = app.post("/rollout", json=request(server, **change))
    assert (answer.status_code, answer.json()["detail"]["error"]["code"]) == (status, code)
    assert "outcome_reward" not in answer.text


@pytest.mark.parametrize(
    ("fault", "status"), [(("status", 429, {}), 429), (("status", 503), 503), (("cut",), 502), (("garbage",), 502)]
)
def test_a_provider_that_fails_is_no_reward_of_0(
    app: httpx.Client, server: ScriptedServer, fault: tuple, status: int
) -> None:
    server.fault = lambda n, body: fault
    answer = app.post("/rollout", json=request(server))
    assert answer.status_code == status and "outcome_reward" not in answer.text


def test_an_answer_that_cannot_be_parsed_is_a_reward_of_0(app: httpx.Client, server: ScriptedServer) -> None:
    server.answer = lambda body: "no sections here"
    said = app.post("/rollout", json=request(server)).json()
    assert (said["reward_info"]["outcome_reward"], said["reward_info"]["details"]["failure"]) == (0.0, "parse")


@pytest.mark.parametrize("body", [{}, {"trace_correlation_id": "t", "env": {}}, "text"])
def test_a_request_without_its_parts_is_422(app: httpx.Client, body: Any) -> None:
    assert app.post("/rollout", json=body).status_code == 422


def test_a_seed_that_is_missing_is_422_and_not_row_0(app: httpx.Client, server: ScriptedServer) -> None:
    assert app.post("/rollout", json=request(server, seed=None)).status_code == 422


def test_64_rollouts_run_at_once(app: httpx.Client, server: ScriptedServer) -> None:
    """Each waits in its first call until all 64 are there."""
    together = threading.Barrier(64, timeout=60)
    first = {"n": 0}

    def wait(n: int, body: dict) -> None:
        if n < 64:
            together.wait()
            first["n"] += 1

    server.fault = wait
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda seed: app.post("/rollout", json=request(server, seed), timeout=60), range(64)))
    assert {answer.status_code for answer in answers} == {200} and first["n"] == 64
    assert len(server.requests) == 3 * 64


# The named entry points


@pytest.fixture
def entry(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen]]:
    started: list[subprocess.Popen] = []

    def start(steps: int, *flags: str, **environment: str) -> subprocess.Popen:
        bare = {name: value for name, value in os.environ.items() if "ENVIRONMENT_API_KEY" not in name.upper()}
        command = [sys.executable, str(ENTRIES[steps]), *flags]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=tmp_path, env=bare | environment, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.parametrize("steps", [3, 5])
def test_the_entry_point_serves_its_pipeline(entry: Callable, server: ScriptedServer, steps: int) -> None:
    port = free_port()
    process = entry(steps, "--port", str(port), "--data", "sample", "--labels", "4", ENVIRONMENT_API_KEY="app-key")
    assert f"banking77_{steps}step on http://127.0.0.1:{port}" in process.stdout.readline()
    said = httpx.post(f"http://127.0.0.1:{port}/rollout", json=request(server), headers=KEY, timeout=60)
    assert said.status_code == 200 and len(server.requests) == steps
    info = httpx.get(f"http://127.0.0.1:{port}/task_info?seed=0", headers=KEY).json()
    assert info["task"]["id"] == f"banking77_{steps}step" and info["task_metadata"]["modules"] == STAGES[steps]


def test_the_entry_point_reads_its_key_from_dotenv(entry: Callable, server: ScriptedServer, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text('ENVIRONMENT_API_KEY="key-of-the-file"\n')
    port = free_port()
    process = entry(3, "--port", str(port), "--data", "sample", "--labels", "4")
    assert f"http://127.0.0.1:{port}" in process.stdout.readline()
    statuses = [
        httpx.get(f"http://127.0.0.1:{port}/health", headers={"X-API-Key": key}).status_code
        for key in ("key-of-the-file", "app-key")
    ]
    assert statuses == [200, 400]


def test_the_entry_point_refuses_in_one_line(entry: Callable) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        sample = ("--data", "sample", "--labels", "4", "--port", str(port))
        refusals = [
            (entry(3, *sample), "ENVIRONMENT_API_KEY is not set"),
            (entry(3, *sample, "--insecure-loopback", "--host", "0.0.0.0"), "only loopback"),
            (entry(3, *sample, "--insecure-loopback"), f"port {port} on 127.0.0.1 is taken"),
            (entry(3, "--insecure-loopback", "--data", "nowhere"), "--data nowhere"),
        ]
        for process, says in refusals:
            shown, told = process.communicate(timeout=60)
            assert process.returncode == 2 and shown == ""
            assert says in told and len(told.strip().splitlines()) == 1, told


def test_the_named_apps_serve_the_rows_of_the_study() -> None:
    options = task_app.parse(["--train-size", "10", "--val-size", "12", "--rollout-budget", "40", "--run", "1"])
    task = task_app.load_task("toy", toy.config(), 3, options)
    bench = load_benchmark("toy", toy.config(), "sample")
    there = make_splits(bench, train=10, val=12, select=5, test=98, run=1)  # test: all that is left, as in the runner
    assert task.rows == there.train + there.select


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl here")
def test_the_documented_requests_work_as_typed(entry: Callable, server: ScriptedServer) -> None:
    """Its app is started as it says; the port and the model server's address are ours, as the page's may be taken."""
    lines = _page().split("## Task apps by hand", 1)[1].splitlines()
    port = free_port()
    started = next(line for line in lines if "banking77_3step_task_app.py" in line)
    flags = shlex.split(started.removesuffix("&").replace("8015", str(port)))[2:]
    process = entry(3, *flags, ENVIRONMENT_API_KEY="app-key")
    assert str(port) in process.stdout.readline()
    answers = []
    for line in (line for line in lines if line.startswith("curl ")):
        typed = line.replace("8015", str(port)).replace("http://127.0.0.1:8080/v1", server.url)
        shell = os.environ | {"ENVIRONMENT_API_KEY": "app-key"}
        said = subprocess.run(["bash", "-c", typed], env=shell, capture_output=True, text=True, timeout=60, check=True)
        answers.append(json.loads(said.stdout))
    health, info, rollout = answers
    assert health["healthy"] and info["dataset"]["index"] == 1 and info["task"]["id"] == "banking77_3step"
    assert rollout["trace_correlation_id"] == "trace_1" and rollout["reward_info"]["outcome_reward"] in (0.0, 1.0)
    assert len(server.requests) == 3


def _page() -> str:
    return (ROOT / "docs" / "hosted-optimizers.md").read_text(encoding="utf-8")
