"""Where requests go: never to a provider that was not meant, and on this machine never through a proxy."""

from __future__ import annotations

import json
import os
import socket
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import run_scaling_experiment as script
from scaling.llm import network
from scaling.models import find_model, load_registry
from scaling.testing import ScriptedServer
from scaling.types import EXIT_OK, EXIT_USAGE, UsageError
from tests.support.files import read
from tests.support.raw_server import Listener
from tests.support.sweeps import run, write_study

FULL = "CHAOS" in os.environ
KEY = "a-real-key-0123456789"


class Proxy(Listener):
    """Listens as a proxy, keeps what it is sent, and answers nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[bytes] = []

    def hear(self, connection: socket.socket) -> None:
        self.heard.append(connection.recv(65536))


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as running:
        yield running


@pytest.fixture(params=["HTTP_PROXY", "ALL_PROXY", "nonsense", "socks"])
def behind_a_proxy(request: pytest.FixtureRequest, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """The environment names a proxy that swallows requests, or one that cannot be used at all."""
    names = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]
    for name in [*names, "NO_PROXY"]:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    values = {"nonsense": "::not an address::", "socks": "socks5://127.0.0.1:1"}
    chosen = [request.param] if request.param in names else names
    for name in chosen:
        monkeypatch.setenv(name, values.get(request.param, proxy.address))
    return proxy


def test_a_sweep_and_its_check_on_loopback_need_no_proxy(
    command: Callable[..., list[str]], server: ScriptedServer, behind_a_proxy: Proxy
) -> None:
    assert script.main([*command(), "--check"]) == EXIT_OK
    assert script.main(command()) == EXIT_OK
    assert len(server.requests) == 21
    assert not behind_a_proxy.heard


def test_a_server_of_the_environment_on_loopback_needs_no_proxy(
    command: Callable[..., list[str]], server: ScriptedServer, behind_a_proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert script.main(command(models="openai/gpt-4o-mini", api_base=None)) == EXIT_OK
    assert len(server.requests) == 20 and not behind_a_proxy.heard
    assert {headers["Authorization"] for headers, _ in server.raw_requests} == {f"Bearer {KEY}"}


def test_the_embedded_models_server_is_asked_directly(server: ScriptedServer, behind_a_proxy: Proxy) -> None:
    with pytest.raises(urllib.error.HTTPError, match="501"):  # the scripted server answers no GET
        network.open_directly(f"{server.url}/models", timeout=5.0)
    assert not behind_a_proxy.heard


@pytest.mark.skipif(not FULL, reason="workers take seconds to start: make chaos")
def test_workers_on_loopback_need_no_proxy(server: ScriptedServer, proxy: Proxy, tmp_path: Path) -> None:
    flags = write_study(tmp_path, server.url, [1], ["none"], 1)
    broken = {name: proxy.address for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy")}
    code, said = run([*flags, "--engine", "dask", "--workers", "1"], tmp_path / "out", **broken)
    assert code == EXIT_OK, said
    assert server.requests and not proxy.heard


@pytest.mark.parametrize(
    ("url", "on_this_machine"),
    [
        ("http://localhost:80/v1", True), ("http://LOCALHOST./v1", True), ("http://127.8.9.10", True),
        ("http://[::1]:8000", True), ("http://0.0.0.0:8000", True), ("https://u:p@127.0.0.1", True),
        ("http://model.localhost", True), ("http://127.0.0.1.example", False), ("http://localhost.example", False),
        ("http://10.0.0.1", False), ("https://api.openai.com/v1", False), ("http://128.0.0.1", False),
    ],
)  # fmt: skip
def test_what_loopback_is(url: str, on_this_machine: bool) -> None:
    assert network.is_loopback(url) is on_this_machine


# Addresses that are none


@pytest.mark.parametrize("value", ["", " ", "nonsense", "http://", "http://:80", "http://127.0.0.1:99999999",
                                   "http://127.0.0.1:0", "http://[::1", "http://a..b", "http://a b", "ftp://host",
                                   f"http://{'a' * 70}.example"])  # fmt: skip
def test_an_address_that_is_none_is_refused_wherever_it_comes_from(
    command: Callable[..., list[str]], refused: Callable[[list[str]], str], tmp_path: Path, value: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    real = ["--models", "openai/gpt-4o-mini", "--benchmarks", "toy", "--steps", "1", "--optimizers", "none"]
    assert "--api-base" in refused([*real, "--api-base", value])
    assert "--api-base" in refused([*real, "--api-base", value, "--check"])
    (tmp_path / "models.toml").write_text(f'[models."openai/gpt-4o-mini"]\napi_base = {json.dumps(value)}\n')
    assert "api_base" in refused([*real, "--models-file", "models.toml"])
    for name in ("OPENAI_API_BASE", "OPENAI_BASE_URL"):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert name in refused(real)
            assert name in refused([*real, "--check"])


@pytest.mark.parametrize("line", ["OPENAI_BASE_URL=", 'OPENAI_API_BASE=""', "OPENAI_BASE_URL=x"])
def test_an_address_that_is_none_in_dotenv_is_refused(
    command: Callable[..., list[str]], refused: Callable[[list[str]], str], tmp_path: Path, line: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in ("OPENAI_API_BASE", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    (tmp_path / ".env").write_text(line + "\n")
    assert line.split("=")[0] in refused(command(models="openai/gpt-4o-mini", api_base=None))


def test_other_providers_have_names_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = load_registry()
    monkeypatch.setenv("GROQ_API_BASE", "")
    assert find_model("openai/gpt-4o-mini", registry).api_base is None
    with pytest.raises(UsageError, match="GROQ_API_BASE is empty"):
        find_model("groq/llama-3.1-8b-instant", registry)
    # An address that the user gives for this sweep is none of the environment's.
    assert find_model("groq/llama-3.1-8b-instant", registry, "http://127.0.0.1:8000/v1").api_base is not None


def test_a_server_that_is_not_there_is_told_before_anything_is_asked(
    command: Callable[..., list[str]], refused: Callable[[list[str]], str], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(network, "PATIENCE_SECONDS", 0)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/v1"
    assert f"nothing listens on port {port}" in refused(command(api_base=address))
    assert script.main([*command(api_base=address), "--check"]) == EXIT_USAGE
    assert f"nothing listens on port {port}" in capsys.readouterr().out

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "the name modelserver is not known" in refused(command(api_base="http://modelserver:8000/v1"))


def test_what_is_settled_needs_no_server(command: Callable[..., list[str]], tmp_path: Path) -> None:
    with ScriptedServer() as there:
        assert script.main(command(api_base=there.url)) == EXIT_OK
    assert script.main(command(api_base=there.url)) == EXIT_OK
    assert read(next(tmp_path.rglob("results.json")))["status"] == "ok"
