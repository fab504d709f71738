"""Whatever a user writes into a flag or a file: it runs, or one clear line says why not. Never a traceback."""

from __future__ import annotations

import json
import os
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import create_pipeline_configs
import run_scaling_experiment as script
from scaling.models import load_registry
from scaling.planning.study import load_study
from scaling.records.store import CACHE
from scaling.types import UsageError

REFUSED_FLAGS = [
    "--runs 123456789012345678901", "--runs 1_000", "--runs 1e3", "--runs ２", "--runs 0", "--runs -1",
    "--rollout-budget -1", "--rollout-budget 99999999999", "--train-size 0", "--train-size 1.5", "--val-size -3",
    "--test-size -1", "--labels 0", "--trials 0", "--trials 999999999", "--steps 1 2 x", "--steps 99",
    "--max-cost -1", "--max-cost nan", "--max-cost 1_0", "--max-concurrency 0", "--max-concurrency 1000000000",
    "--max-error-rate 2", "--max-error-rate nan", "--timeout 0", "--timeout inf", "--timeout 1e300",
    "--workers 0 --engine dask", "--engine slurm", "--task-app-port 70000", "--job-timeout -1",
    "--api-base ftp://x", "--api-base x", "--data", "--feedback praise", "--mode sometimes",
    "--study ../quick", "--study /dev/null.toml", "--benchmarks ../../x", "--models ../x", "--output-dir",
]  # fmt: skip


@pytest.fixture
def toy_command(
    toy: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[list[str]], tuple[int, str, str]]:
    """Runs a dry run of the toy benchmark with more flags: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(flags: list[str]) -> tuple[int, str, str]:
        fixed = ["--benchmarks", "toy", "--steps", "1", "--optimizers", "none", "--data", "sample", "--dry-run"]
        fixed += ["--models", "openai/scripted", "--api-base", "http://127.0.0.1:9/v1"]
        try:
            code = script.main([*fixed, *flags])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


@pytest.mark.parametrize("flags", REFUSED_FLAGS)
def test_a_value_that_makes_no_sense_is_one_line(
    toy_command: Callable[[list[str]], tuple[int, str, str]], flags: str
) -> None:
    code, _, errors = toy_command(flags.split())
    assert code == 2
    assert errors.startswith("error: ") and len(errors.splitlines()) == 1 and len(errors) < 1500, errors


VALUES = st.one_of(
    st.sampled_from(["nan", "inf", "-0", "1e400", "1_000", "0x10", "", " ", "None", "true", "٣", "..", "/", "a\nb"]),
    st.integers().map(str), st.floats().map(str), st.text(string.printable, max_size=30),
)  # fmt: skip
FLAGS = [
    "--runs", "--steps", "--rollout-budget", "--train-size", "--val-size", "--test-size", "--labels", "--max-cost",
    "--max-concurrency", "--max-error-rate", "--timeout", "--feedback", "--optimizers", "--pipelines", "--models",
    "--optimizer-model", "--phase", "--trials", "--mode", "--rollouts", "--engine", "--workers", "--job-timeout",
]  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=120)
@given(flag=st.sampled_from(FLAGS), value=VALUES)
def test_any_value_of_any_flag_runs_or_is_one_line(
    toy_command: Callable[[list[str]], tuple[int, str, str]], flag: str, value: str
) -> None:
    if flag == "--runs" and value.strip("-").isdigit() and int(value) > 20:
        value = "0" + value[:1]  # a plan of thousands of cells is possible, and long
    code, _, errors = toy_command([f"{flag}={value}"])
    assert code in (0, 2)
    assert (code == 0) == (errors == ""), errors
    assert len(errors.splitlines()) <= 1, errors


def test_more_cells_than_anybody_means_ask_for_a_word(
    toy_command: Callable[[list[str]], tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, errors = toy_command(["--runs", "100001"])
    assert code == 2 and "100,001 cells" in errors and "--many-cells" in errors
    monkeypatch.setattr("scaling.planning.plan.MANY_CELLS", 2)
    assert toy_command(["--runs", "3"])[0] == 2
    assert toy_command(["--runs", "3", "--many-cells"])[0] == 0


NO_TOML = [
    b"\xff\xfe\x00", "name = 'x'".encode("utf-16"), b"\x00", b"name = ", b"a = " + b"[" * 5000 + b"]" * 5000,
    b"runs = " + b"9" * 5000, b"name = 1\nname = 2",
]  # fmt: skip
BAD_STUDIES = [
    "temperature = nan", "temperature = inf", "temperature = -1.0", "temperature = 1e9", "temperature = true",
    "train_size = 5.0", "train_size = true", "val_size = 0", "test_size = -1", "runs = 1_000_000_000", "runs = true",
    "name = '../../x'", "name = ''", "steps = [1.0]", "steps = [true]", "labels = 0", "seed = -1", "closed_book = 1",
    "benchmarks = 'toy'", "benchmarks = [1]", "phase = '1'", "exact_sizes = ['test_size']", "rollout_budget = 1e3",
    "run_list = [-1]", "steps_by_benchmark = {toy = 1}", "phases = {one = {temperature = nan}}", "phases = {one = 1}",
    "models_by_optimizer = {gepa = 'x'}", "synth_rollouts = 0", "data = 3", "compares_mipro = 'yes'",
]  # fmt: skip
BAD_MODELS = [
    "bytes_per_token = 0", "bytes_per_token = nan", "max_concurrency = 0", "max_concurrency = -1", "embedded = true",
    "adapter = 'xml'", "status = 'gone'", "status = 'retired'", "parameters_status = 'guessed'",
    "input_usd_per_million = -1.0", "output_usd_per_million = inf", "input_usd_per_million = true",
    "max_output_tokens = -5", "max_output_tokens = 2.0", "max_output_tokens = true", "context_length = 0",
    "parameters_billions = 0.0", "aliases = 'b'", "aliases = ['claude-haiku']", "aliases = ['../b']", "api_base = 'x'",
    "key_env = 'MY KEY'", "sends_seed = 1", "route = ''", "status = 'retired'\nsuccessor = 'openai/nobody'", "id = 'b'",
    "efforts = ['hard']", "reasons = 'often'", "temperature = 0.5", "end_date = 'soon'", "reasoning_effort = 'low'",
    "route = 'openai/gpt-5.4'\nmax_output_tokens = 2000",
]  # fmt: skip


def refused(read: Callable[[], object]) -> str:
    with pytest.raises(UsageError) as error:
        read()
    line = str(error.value)
    assert len(line.splitlines()) == 1 and len(line) < 1500, line
    return line


@pytest.mark.parametrize("content", NO_TOML, ids=range(len(NO_TOML)))
def test_a_file_that_is_no_toml_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    assert "mine.toml" in refused(lambda: load_study(str(path)))
    assert "mine.toml" in refused(lambda: load_registry(path))


def test_a_pipe_and_a_folder_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "folder.toml").mkdir()
    for name in ("pipe.toml", "folder.toml"):
        assert name in refused(lambda name=name: load_study(str(tmp_path / name)))
        assert name in refused(lambda name=name: load_registry(tmp_path / name))


@pytest.mark.parametrize("line", BAD_STUDIES)
def test_a_study_that_cannot_be_is_refused_by_its_field(tmp_path: Path, line: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(line)
    assert line.split()[0] in refused(lambda: load_study(str(path)))


@pytest.mark.parametrize("line", BAD_MODELS)
def test_a_model_that_cannot_be_is_refused_by_its_name(tmp_path: Path, line: str) -> None:
    path = tmp_path / "models.toml"
    path.write_text(f'[models."a/b"]\n{line}\n')
    assert "a/b" in refused(lambda: load_registry(path))


def test_names_that_mean_two_models_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text('[models."a/b"]\naliases = ["c/d"]\n[models."c/d"]\naliases = ["a/b"]\n')
    assert "names both" in refused(lambda: load_registry(path))


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xef\xbb\xbfruns = 2\n")
    assert load_study(str(path)).runs == 2


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(), st.text(string.printable, max_size=20)
)
JSON_VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab.x", max_size=3), inner, max_size=3)
)


def toml_value(value: Any) -> str | None:
    """A value as TOML text; None for what TOML cannot say."""
    if value is None:
        return None
    if isinstance(value, dict):
        inner = {json.dumps(key): toml_value(item) for key, item in value.items()}
        return "{" + ", ".join(f"{key} = {text}" for key, text in inner.items() if text is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(text for item in value if (text := toml_value(item)) is not None) + "]"
    return repr(value) if isinstance(value, float) else json.dumps(value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(name=st.sampled_from([*load_study("pipeline").__dataclass_fields__, "bogus"]), value=JSON_VALUES)
def test_any_value_of_any_field_of_a_study_is_read_or_refused(tmp_path: Path, name: str, value: Any) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"{name} = {toml_value(value)}\n", encoding="utf-8")
    try:
        study = load_study(str(path))
    except UsageError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert (
            (study.train_size is None or study.train_size >= 1)
            and 0 <= study.temperature <= 2
            and ".." not in study.name
        )


def test_configs_are_written_for_plain_names_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('benchmarks = ["../../elsewhere"]\nmodels = ["gpt-4o"]\n')
    output = tmp_path / "a" / "b" / "c"
    assert create_pipeline_configs.main(["--study", str(path), "--output-dir", str(output)]) == 2
    assert "elsewhere" in capsys.readouterr().err
    assert list(tmp_path.rglob("*")) == [path]


def test_a_csv_whose_name_is_no_folders_name_is_refused(
    toy_command: Callable[[list[str]], tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "...csv").write_text("question,answer\n")
    code, _, errors = toy_command(["--benchmarks", "...csv"])
    assert code == 2 and "becomes a folder's" in errors


def test_a_value_in_dotenv_may_have_several_lines(
    toy_command: Callable[[list[str]], tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TOY_CERTIFICATE", "TOY_AFTER"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    (tmp_path / ".env").write_text('TOY_CERTIFICATE="first\n= second\nthird"\nTOY_AFTER=1\n')
    assert toy_command([])[0] == 0
    assert os.environ["TOY_CERTIFICATE"] == "first\n= second\nthird" and os.environ["TOY_AFTER"] == "1"


@pytest.mark.parametrize("content", [b"KEY=\xff", b'A=1\nB="x\0y"\n', b'A="never closed\n'])
def test_a_dotenv_that_cannot_be_used_is_one_line_without_its_values(
    toy_command: Callable[[list[str]], tuple[int, str, str]], tmp_path: Path, content: bytes
) -> None:
    (tmp_path / ".env").write_bytes(content)
    code, _, errors = toy_command([])
    assert code == 2 and ".env" in errors and len(errors.splitlines()) == 1 and "never closed" not in errors


def test_the_one_liner_reads_dotenv(
    experiment: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOY_ONE_LINER", "")
    monkeypatch.delenv("TOY_ONE_LINER")
    (tmp_path / ".env").write_text("TOY_ONE_LINER=read\n")
    experiment()
    assert os.environ["TOY_ONE_LINER"] == "read"


def _file(path: Path, content: bytes = b"no database " * 500) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)


UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a damaged cache": (lambda out: _file(out / CACHE), "Move it away"),
    "a folder for its log": (lambda out: (out / f"{CACHE}-wal").mkdir(parents=True), "Give another --output-dir"),
    "a pipe": (lambda out: ((out / CACHE).parent.mkdir(parents=True), os.mkfifo(out / CACHE)), "Give another"),
    "a link to itself": (lambda out: out.symlink_to(out), "Give another"),
}


@pytest.mark.parametrize(("spoil", "advice"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_output_folder_is_named_with_what_to_do(
    command: Callable, capsys: pytest.CaptureFixture, tmp_path: Path, spoil: Callable, advice: str
) -> None:
    spoil(tmp_path / "out")
    assert script.main(command()) == 2
    said = capsys.readouterr().err
    assert len(said.strip().splitlines()) == 1 and "out" in said and advice in said
    assert "Free the disk" not in said
