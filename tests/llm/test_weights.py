"""Model files: found, fetched from a hub on loopback, and refused in one line where they cannot be served."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gguf
import numpy as np
import pytest

import run_scaling_experiment as script
from scaling.llm.weights import located, read_model_file, sha256_of, with_named_files
from scaling.models import find_model, load_registry
from scaling.types import UsageError
from tests.support.command import GOOD

ROOT = Path(__file__).parents[2]


def write_model(path: Path, blocks: int = 2, template: bool = True, context: int = 2048) -> Path:
    """A GGUF file with everything but sense: two tensors of 64 numbers."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(64)
    writer.add_block_count(blocks)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    if template:
        writer.add_chat_template("{{ messages }}")
    for name in ("token_embd.weight", "output.weight"):
        writer.add_tensor(name, np.zeros((8, 8), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_file_says_what_is_needed_to_serve_it(tmp_path: Path) -> None:
    file = read_model_file(write_model(tmp_path / "tiny.gguf"))
    assert file.context == 2048
    assert file.parameters == 128
    # 2,048 tokens, 2 layers, 2 heads of 16 for keys and values each, 2 bytes a number
    assert file.context_bytes == 2048 * 2 * 2 * (16 + 16) * 2
    assert read_model_file(write_model(tmp_path / "long.gguf", context=10**6)).context == 8192


def test_a_named_file_is_a_model_of_its_own_that_no_path_identifies(tmp_path: Path) -> None:
    path = write_model(tmp_path / "my model (1).gguf")
    registry = with_named_files(load_registry(), [f"gguf:{path}", None, "openai/other"])
    model = find_model(f"gguf:{path}", registry)
    assert model.id == f"gguf/my-model--1@{sha256_of(path)[:8]}"
    assert model.is_local and model.parameters_billions is None and model.cost(1000, 1000) == 0.0
    moved = path.rename(tmp_path / "elsewhere.gguf")
    assert find_model(f"gguf:{moved}", with_named_files(load_registry(), [f"gguf:{moved}"])).id.endswith(model.id[-8:])


def test_a_file_of_the_registry_is_known_by_its_hash(tmp_path: Path) -> None:
    path = write_model(tmp_path / "renamed.gguf")
    entry = tmp_path / "models.toml"
    entry.write_text(f'[models."local/mine"]\nweights = {{ file = "a.gguf", sha256 = "{sha256_of(path)}" }}\n')
    registry = with_named_files(load_registry(entry), [f"gguf:{path}"])
    assert find_model(f"gguf:{path}", registry).id == "local/mine"


def test_a_file_is_found_in_the_folder_of_models(tmp_path: Path) -> None:
    model = load_registry()["local/qwen2.5-0.5b"]
    assert model.weights.path is None
    (tmp_path / model.weights.file).write_bytes(b"GGUF")
    assert located(model, tmp_path).weights.path == tmp_path / model.weights.file


WRONG_FILES = {
    "no GGUF": (lambda path: path.write_text("hello"), "is no GGUF file"),
    "empty": (lambda path: path.write_bytes(b""), "is no GGUF file"),
    "cut": (lambda path: path.write_bytes(write_model(path).read_bytes()[:-300]), "damaged or cut short"),
    "cut in its header": (lambda path: path.write_bytes(write_model(path).read_bytes()[:200]), "damaged or cut short"),
    "no template": (lambda path: write_model(path, template=False), "has no chat template"),
    "too large": (lambda path: write_model(path, blocks=10**9), "GB of memory"),
    "folder": (lambda path: path.mkdir(), "there is no file"),
    "absent": (lambda path: None, "there is no file"),
}


@pytest.mark.parametrize(("make", "reason"), WRONG_FILES.values(), ids=list(WRONG_FILES))
def test_a_file_that_cannot_be_served_is_one_line_before_anything_starts(
    make, reason: str, tmp_path: Path, toy, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "model.gguf")
    changed = GOOD | {"--models": "gguf:model.gguf"}
    assert script.main([word for pair in changed.items() for word in pair]) == 2
    error = capsys.readouterr().err
    assert reason in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_file_of_another_hash_is_refused(tmp_path: Path, toy, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "a.gguf")
    entry = f'weights = {{ file = "a.gguf", path = "a.gguf", sha256 = "{"0" * 64}" }}'
    Path("models.toml").write_text(f'[models."local/mine"]\n{entry}\n')
    changed = GOOD | {"--models": "local/mine", "--models-file": "models.toml"}
    assert script.main([word for pair in changed.items() for word in pair]) == 2
    error = capsys.readouterr().err
    assert "is not the published file" in error and error.count("\n") == 1


class Hub(ThreadingHTTPServer):
    """A hub on loopback that has one file in each repository; counts the bytes that it sent."""

    def __init__(self, content: bytes):
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.content, self.sent = content, 0


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        content = self.server.content
        self.send_response(200)
        self.send_header("X-Repo-Commit", "1" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.server.content)
        self.server.sent += len(self.server.content)

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with Hub(write_model(tmp_path / "published.gguf").read_bytes()) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()


FETCH = """
import time
from pathlib import Path
time.sleep = lambda seconds: None  # the library waits between its tries
from scaling.llm.weights import fetched, file_of, located
from scaling.models import load_registry
from scaling.types import UsageError
model = located(load_registry(Path("models.toml"))["local/mine"], None)
print("here" if model.weights.path else "not here")
try:
    print(file_of(fetched(model)).parameters)
except UsageError as error:
    print(error)
"""


def fetch(folder: Path, hub: Hub, sha256: str) -> list[str]:
    """What a process prints that finds or fetches the hub's file; the cache is in the folder."""
    weights = f'repository = "me/mine", file = "published.gguf", revision = "{"1" * 40}", sha256 = "{sha256}"'
    (folder / "models.toml").write_text(f'[models."local/mine"]\nweights = {{ {weights} }}\n')
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-c", FETCH], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return ended.stdout.splitlines()


def test_a_file_is_fetched_once_and_its_hash_is_checked(tmp_path: Path, hub: Hub) -> None:
    good = hashlib.sha256(hub.content).hexdigest()
    assert fetch(tmp_path, hub, good) == ["not here", "128"]
    sent = hub.sent
    assert fetch(tmp_path, hub, good) == ["here", "128"]
    assert hub.sent == sent > 0
    (refusal,) = fetch(tmp_path, hub, "0" * 64)[1:]
    assert "is not the published file" in refusal


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path: Path, hub: Hub) -> None:
    hub.shutdown()
    hub.server_close()
    (refusal,) = fetch(tmp_path, hub, "0" * 64)[1:]
    assert "cannot be fetched from me/mine" in refusal and "--models-dir" in refusal


def test_the_plan_says_what_will_be_fetched(tmp_path: Path, toy, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    changed = GOOD | {"--models": "local/qwen2.5-coder-0.5b"}
    assert script.main([*(word for pair in changed.items() for word in pair), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf (about 491 MB, licence Apache-2.0) will be fetched from" in printed


def test_two_local_models_under_dask_are_refused(tmp_path: Path, toy, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = write_model(tmp_path / "a.gguf"), write_model(tmp_path / "b.gguf", blocks=3)
    words = [word for pair in (GOOD | {"--models": f"gguf:{first}"}).items() for word in pair]
    words.insert(words.index(f"gguf:{first}"), f"gguf:{second}")
    assert script.main([*words, "--engine", "dask"]) == 2
    assert "serves one local model" in capsys.readouterr().err


def test_an_unknown_field_of_weights_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text('[models."local/mine"]\nweights = { file = "a.gguf", sha = "12" }\n')
    with pytest.raises(UsageError, match="weights"):
        load_registry(tmp_path / "models.toml")
