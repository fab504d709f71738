"""No secret and no control sequence in anything that is written, shown or packed."""

from __future__ import annotations

import base64
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import analyze_results
import package_results
from scaling.command import prepare
from scaling.redact import HIDDEN, hide_known, redact, remember
from scaling.testing import ScriptedServer
from scaling.types import EXIT_FAILED, EXIT_OK
from tests.support.sweeps import run

SECRETS = {
    name: f"{name}-c0ffee-{i}{i}{i}"
    for i, name in enumerate(
        ("environment", "dotenv", "api-base", "models-file", "echoed", "redirected", "header", "traced")
    )
}
ANSI = "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J bell\x07"
MODELS = """
[models."toy/{name}"]
route = "openai/scripted"
api_base = "{url}"
key_env = "{key_env}"
"""
SMALL = ["--benchmarks", "toy", "--steps", "1", "--optimizers", "none", "--runs", "1", "--data", "sample",
         "--train-size", "5", "--val-size", "10", "--test-size", "6"]  # fmt: skip


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Secrets in the environment and in .env, which is read in this folder."""
    monkeypatch.setenv("TOY", SECRETS["environment"])  # only the models file says that this one is a key
    monkeypatch.setenv("UNUSED_TOKEN", SECRETS["traced"])
    monkeypatch.setenv("TOY_DOTENV_KEY", "to be restored")
    monkeypatch.delenv("TOY_DOTENV_KEY")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / ".env").write_text(f"TOY_DOTENV_KEY={SECRETS['dotenv']}\n")
    monkeypatch.chdir(tmp_path / "work")
    return SECRETS


def faults(kind: str) -> tuple | None:
    """What a provider may do with the secrets that it was sent, and with some of its own."""
    both = f"{SECRETS['environment']} and {SECRETS['dotenv']}"
    header = {"WWW-Authenticate": f"Bearer {SECRETS['header']}", "X-Api-Key": SECRETS["header"], "Retry-After": "0"}
    text = {
        "refuses": f"{ANSI} invalid key {both}; Authorization: Bearer {SECRETS['echoed']}",
        "fails": f"api_key={SECRETS['echoed']}&x; GET /v1?api_key={SECRETS['echoed']} {both}",
        "redirects": "moved",
    }.get(kind)
    if text is None:
        return None
    if kind == "redirects":
        return ("status", 302, {"Location": f"http://me:{SECRETS['redirected']}@127.0.0.1:9/?key={SECRETS['redirected']}"},
                f"moved to http://me:{SECRETS['redirected']}@127.0.0.1:9/?key={SECRETS['redirected']}")  # fmt: skip
    return ("status", 401 if kind == "refuses" else 400, header, text)


def test_eight_planted_secrets_are_nowhere(
    secrets: dict[str, str], no_backoff: None, toy: Callable, tmp_path: Path, capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def metric(gold: object, pred: object, trace: object = None) -> float:
        raise RuntimeError(f"{ANSI} the judge's {os.environ['UNUSED_TOKEN']}")

    toy("broken", metric=metric)
    shown = []
    with ScriptedServer() as server:
        user = server.url.replace("http://", f"http://me:{secrets['models-file']}@")
        text = "".join(
            MODELS.format(name=name, url=user, key_env=key_env)
            for name, key_env in (("one", "TOY"), ("two", "TOY_DOTENV_KEY"))
        )
        (tmp_path / "models.toml").write_text(text)
        base = server.url.replace("http://", f"http://me:{secrets['api-base']}@")
        results = tmp_path / "work" / "results"
        for kind in ("refuses", "fails", "redirects", "answers"):
            server.fault = lambda n, body, kind=kind: faults(kind)
            server.answer = None
            if kind == "answers":
                echo = f"{secrets['environment']} {secrets['dotenv']} {secrets['models-file']} {secrets['api-base']}"
                server.answer = lambda body, echo=echo: f"[[ ## label ## ]]\nrefund\n\nnot asked: {echo}"
            flags = [*SMALL, "--models-file", str(tmp_path / "models.toml"), "--models", "toy/one", "toy/two"]
            code, said = run(flags, results / kind)
            assert code == (EXIT_OK if kind == "answers" else EXIT_FAILED), said
            shown.append(said)
            code, said = run([*SMALL, "--api-base", base, "--models", "openai/scripted"], results / kind)
            assert code == (EXIT_OK if kind == "answers" else EXIT_FAILED), said
            shown.append(said)
        server.fault = None
        server.answer = None
        broken = [*SMALL, "--api-base", base, "--models", "openai/scripted", "--benchmarks", "broken"]
        assert run(broken, results / "broken")[0] == EXIT_FAILED
        sent = server.raw_requests[-1][0]["Authorization"]
    refused = run([*SMALL, "--api-base", base, "--models", "openai/scripted"], results / "refused")
    assert "nothing listens" in refused[1], refused[1]
    shown.append(refused[1])
    monkeypatch.setattr(prepare, "why_unreachable", lambda url: None)
    down = run([*SMALL, "--api-base", base, "--models", "openai/scripted", "--timeout", "1"], results / "down")
    assert "is down" in down[1], down[1]
    assert base64.b64decode(sent.removeprefix("Basic ")).decode() == f"me:{secrets['api-base']}"  # it was really used
    assert analyze_results.main(["--results-dir", "results", "--output-dir", "analysis"]) == EXIT_OK
    assert package_results.main(["--results-dir", "results"]) == EXIT_OK
    written = {
        path: path.read_bytes() for path in (tmp_path / "work").rglob("*") if path.is_file() and path.name != ".env"
    }
    with tarfile.open("package.tar.gz") as tar:
        members = [member for member in tar.getmembers() if member.isfile()]
        written |= {Path(member.name): tar.extractfile(member).read() for member in members}
    written[Path("screen")] = "".join([*shown, down[1], *capsys.readouterr()]).encode()
    assert len(written) > 100
    basic = [base64.b64encode(f"me:{secrets[name]}".encode()) for name in ("api-base", "models-file")]
    for what in [*(secret.encode() for secret in secrets.values()), *basic]:
        assert [path for path, content in written.items() if what in content] == []
    texts = [path for path, content in written.items() if path.suffix in (".json", ".jsonl", ".log", ".md", ".html")]
    for path in [*texts, Path("screen")]:
        text = written[path].decode()
        assert not any(mark in text for mark in ("\x1b", "\\u001b", "\x9b", "\x07", "\\u0007")), path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at https://user:pa55@host/v1", f"at https://{HIDDEN}@host/v1"),
        ("Authorization: Bearer abc.def-123", f"Authorization: Bearer {HIDDEN}"),
        ("GET /v1?x=1&api_key=abcdef123&y=2", f"GET /v1?x=1&api_key={HIDDEN}&y=2"),
        ('{"api_key": "abcdef123"}', f'{{"api_key": "{HIDDEN}"}}'),
        ("Incorrect API key provided: sk-proj-abcdefghijkl", f"Incorrect API key provided: {HIDDEN}"),
        ("\x1b[1;31mred\x1b[0m\x1b]8;;http://x\x1b\\link\x07\r\n\ttab", "redlink\n\ttab"),
        ("a plain message: 3 tokens, key figures, 50 % at http://host/v1", None),
        ("the token limit=100 was passed; mail me@example.org", None),
    ],
)
def test_messages_lose_secrets_and_control_sequences(text: str, expected: str | None) -> None:
    assert redact(text) == (text if expected is None else expected)


def test_data_lose_known_secrets_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", 'quo"te\n and ü')
    remember("none", None, "remembered-9")
    text = 'https://u:p@host \x1b[0m none remembered-9 quo"te\n and ü | quo\\"te\\n and ü | quo%22te%0A%20and%20%C3%BC'
    assert hide_known(text) == f"https://u:p@host \x1b[0m none {HIDDEN} {HIDDEN} | {HIDDEN} | {HIDDEN}"


def test_the_packager_refuses_a_secret_it_finds(
    secrets: dict[str, str], experiment: Callable, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    experiment(output_dir=tmp_path / "work" / "results" / "cell")
    notes = tmp_path / "work" / "results" / "cell" / "notes.txt"
    notes.write_text(f"key: {secrets['dotenv']}")
    assert package_results.main([]) != EXIT_OK
    assert "cell/notes.txt holds the value of TOY_DOTENV_KEY" in capsys.readouterr().err
    calls = tmp_path / "work" / "results" / "cell" / "calls.jsonl"
    notes.unlink()
    calls.write_text(calls.read_text() + '{"error": "Bearer abcdefghijk"}\n')
    assert package_results.main([]) != EXIT_OK
    assert "calls.jsonl holds what looks like a key" in capsys.readouterr().err
