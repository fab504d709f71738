"""Every number in the report comes from a record: its tables are built again here, from the files alone."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Iterator
from math import comb
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

import analyze_results
import run_scaling_experiment as script
from scaling.intervals import newcombe_paired
from scaling.testing import ScriptedServer
from tests.conftest import SMALL
from tests.support import toy
from tests.support.files import lines, read
from tests.support.formats import ends, points
from tests.support.report_tables import latex_tables, tables
from tests.support.sweeps import MODELS

CELLS = [("none", 1), ("gepa", 1), ("gepa", 2), ("mipro", 1), ("mipro", 2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Five cells that are ok; one invalid, one stopped by the cap, and one that was planned and never run."""
    skill = lambda body: 0.9 if "Rule" in str(body["messages"]) else 0.4  # noqa: E731
    with pytest.MonkeyPatch.context() as patched, ScriptedServer(skill=skill, truth=toy.truth()) as server:
        patched.setitem(script.BENCHMARK_CONFIG, "toy", toy.config())
        server.usage_details = {
            "prompt_tokens_details": {"cached_tokens": 20}, "completion_tokens_details": {"reasoning_tokens": 3},
        }  # fmt: skip
        yield analysed(tmp_path_factory.mktemp("report"), server)


def analysed(tmp_path: Path, server: ScriptedServer) -> Path:
    results = tmp_path / "results"
    (tmp_path / "models.toml").write_text(MODELS.format(url=server.url))
    for optimizer, steps in CELLS:
        keywords = SMALL | {"model": "toy/priced", "models_file": tmp_path / "models.toml", "test_size": 40}
        keywords["val_size"] = 40  # 35 of them are check rows
        keywords |= {"optimizer": optimizer, "num_steps": steps, "output_dir": results / f"{optimizer}{steps}"}
        record = asyncio.run(script.run_single_experiment(**keywords))
        assert record["status"] == "ok", record["error"]
    for status, why in (("invalid", "9.0 % of test examples failed"), ("budget", "the next call may cost $0.001")):
        record = read(results / "gepa2" / "results.json") | {"status": status, "cell_id": status * 2}
        record |= dict.fromkeys(("final_score", "baseline_score", "improvement", "final_ci95"))
        record["error"] = {"kind": status, "message": why}
        (results / status).mkdir()
        (results / status / "results.json").write_text(json.dumps(record))
    plan = read(results / "mipro2" / "plan.json")
    (results / "mipro2" / "plan.json").write_text(json.dumps(plan | {"never": next(iter(plan.values()))}))
    assert analyze_results.main(["--results-dir", str(results), "--output-dir", str(tmp_path)]) == 0
    return tmp_path


def records(folder: Path) -> Iterator[tuple[dict, dict[str, list[dict]]]]:
    """(record, prediction lines by program) of the cells that are ok, in the report's order."""
    for optimizer, steps in sorted(CELLS):
        home = folder / "results" / f"{optimizer}{steps}"
        by_program: dict[str, list[dict]] = {}
        for line in lines(home / "predictions.jsonl"):
            by_program.setdefault(line["program"], []).append(line)
        yield read(home / "results.json"), by_program


SPLIT = {"prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "list_cost_usd"}
NAMES = {"none": "no optimizer", "gepa": "GEPA", "mipro": "MIPROv2"}


def right(lines_of_one: list[dict]) -> np.ndarray:
    return np.array([line["score"] for line in lines_of_one])


def test_the_scores_are_the_predictions(folder: Path) -> None:
    expected = []
    for record, by_program in records(folder):
        cell, base, final = record["cell"], right(by_program["baseline"]), right(by_program["final"])
        unchanged = bool((base == final).all()) and record["unchanged"]
        lost, won = int((base > final).sum()), int((base < final).sum())
        wilson = proportion_confint(int(final.sum()), len(final), method="wilson")
        adopt = "" if unchanged or cell["optimizer"] == "none" else (
            "yes" if mid_p(won, lost) <= 0.05 else "not shown"
        )  # fmt: skip
        no_optimizer = cell["optimizer"] == "none"
        change = "—" if no_optimizer else "unchanged" if unchanged else points(final.mean() - base.mean(), sign=True)
        interval = "—" if unchanged else ends(newcombe_paired(base, final), sign=True)
        expected.append(
            ["toy", f"{cell['steps']}step", NAMES[cell["optimizer"]], points(base.mean()), points(final.mean()),
             ends(wilson), change, interval, f"{len(final)} test", "1", adopt]
        )  # fmt: skip
        assert record["final_score"] == pytest.approx(final.mean())
    assert sorted(tables((folder / "report.html").read_text())["Scores"]) == sorted(expected)


def mid_p(won: int, lost: int) -> float:
    """One-sided mid-p of `won` or more of won + lost, by its definition."""
    n = won + lost
    return (sum(comb(n, k) for k in range(won + 1, n + 1)) + comb(n, won) / 2) / 2**n


def test_what_stays_unequal_is_what_was_used(folder: Path) -> None:
    expected = []
    for record, by_program in records(folder):
        cell, final = record["cell"], by_program["final"]
        optimized = cell["optimizer"] != "none"
        calls = lines(folder / "results" / f"{cell['optimizer']}{cell['steps']}" / "calls.jsonl")
        proposals = [call for call in calls if call["role"] in ("reflection", "proposer")]
        tasks = [call for call in calls if call["phase"] == "optimize" and call not in proposals]
        used = record["rollouts_used"]
        flagged = "" if 0.8 <= used / 40 <= 1 else " (flagged)"
        dollars = sum(call["list_cost_usd"] for call in calls if call["phase"] == "optimize")
        expected.append(
            ["toy", f"{cell['steps']}step", NAMES[cell["optimizer"]],
             f"{used} of 40{flagged}" if optimized else "—",
             str(len(tasks)) if optimized else "—", str(len(proposals)) if optimized else "—",
             ", ".join(str(record["proposals"][name]) for name in ("tried", "unparsed", "accepted")),
             f"{dollars:.4f}", f"{np.mean([line['calls'] for line in final]):.2f}",
             f"{np.mean([line['tokens'] for line in final]):.0f}", points(right(final).mean()),
             points(right(by_program["at_equal_calls"]).mean()) if "at_equal_calls" in by_program else "—", "—"]
        )  # fmt: skip
    assert sorted(tables((folder / "report.html").read_text())["What stays unequal"]) == sorted(expected)


def dollars(line: dict) -> float:
    """An answer's list cost: 3 USD a million input tokens, 1 of those that the provider had cached, 11 of output."""
    fresh = line["prompt_tokens"] - line["cached_tokens"]
    return (3 * fresh + line["cached_tokens"] + 11 * line["completion_tokens"]) / 1e6


def test_the_money_is_what_the_calls_cost(folder: Path) -> None:
    shown = {tuple(row[1:3]): row for row in tables((folder / "report.html").read_text())["Money"]}
    every = {(r["cell"]["optimizer"], r["cell"]["steps"]): (r, p) for r, p in records(folder)}
    single = every["gepa", 1][1]["baseline"]
    for (optimizer, steps), (record, by_program) in every.items():
        row = shown[f"{steps}step", NAMES[optimizer]]
        final = by_program["final"]
        gain = right(final).mean() - right(single).mean()
        assert row[3] == points(gain, sign=True)
        itself = record["unchanged"] and steps == 1
        assert row[4] == ("—" if itself else ends(newcombe_paired(right(single), right(final)), sign=True))
        tokens = np.mean([line["tokens"] for line in final])
        assert row[5] == f"{tokens:.0f}"
        assert row[7] == f"{1000 * np.mean([dollars(line) for line in final]):.4f}"
        kinds = [np.mean([line[kind] for line in final]) for kind in ("prompt_tokens", "completion_tokens")]
        assert row[6] == f"{kinds[0]:.0f} ({20 * steps}) + {kinds[1]:.0f} ({3 * steps})"
        assert row[14] == points(20 * steps / kinds[0])  # the hit rate of the provider's prompt cache
        more = tokens - np.mean([line["tokens"] for line in single])
        assert row[8] == ("—" if more <= 0.05 * tokens else f"{100 * gain / (more / 1000):+.1f}")
        assert row[10] == f"{record['usage']['optimize']['list_cost_usd']:.4f}"
        assert row[11] == f"{record['proposal_usage']['list_cost_usd']:.4f}"


def test_records_without_costs_of_their_answers_use_the_average_and_say_so(folder: Path, tmp_path: Path) -> None:
    """As the records from before answers had one: an evaluation's cost is shared out by tokens."""
    old = shutil.copytree(folder / "results" / "gepa2", tmp_path / "results" / "gepa2")
    kept = [{k: v for k, v in line.items() if k not in SPLIT} for line in lines(old / "predictions.jsonl")]
    (old / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    assert analyze_results.main(["--results-dir", str(tmp_path / "results"), "--output-dir", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    (row,) = tables(page)["Money"]
    evaluate = read(old / "results.json")["usage"]["evaluate"]
    price = evaluate["list_cost_usd"] / (evaluate["prompt_tokens"] + evaluate["completion_tokens"])
    tokens = np.mean([line["tokens"] for line in kept if line["program"] == "final"])
    assert row[6:8] == ["—", f"{1000 * tokens * price:.4f}"]
    assert "The answers of 1 cell are priced at the average of all tokens of the cell" in page
    assert "priced at the average" not in (folder / "report.html").read_text()


def test_improvements_are_tested_on_the_same_items(folder: Path) -> None:
    rows = tables((folder / "report.html").read_text())["Improvement by optimization (exploratory)"]
    changed = {}
    for record, by_program in records(folder):
        base, final = right(by_program["baseline"]), right(by_program["final"])
        if record["cell"]["optimizer"] != "none" and (base != final).any():
            won, lost = int((base < final).sum()), int((base > final).sum())
            name = f"toy {record['cell']['steps']} chain {record['cell']['optimizer']}: final - baseline"
            one_sided = mid_p(won, lost)
            changed[name] = (final.mean() - base.mean(), min(1.0, 2 * min(one_sided, 1 - one_sided)))
    assert changed
    adjusted = multipletests([p for _, p in changed.values()], method="holm")[1]
    expected = [[n, points(e, sign=True), f"{p:.3f}"] for (n, (e, _)), p in zip(changed.items(), adjusted, strict=True)]
    assert sorted([row[0], row[2], row[4]] for row in rows) == sorted(expected)
    assert all(row[5:7] == ["this program on these rows", "40 x 1"] for row in rows)


def test_other_comparisons_are_tested_on_the_same_items(folder: Path) -> None:
    """Steps against one step, and GEPA against each other optimizer: effect, interval and Holm's p from the answers."""
    found = tables((folder / "report.html").read_text())
    final = {(r["cell"]["optimizer"], r["cell"]["steps"]): right(p["final"]) for r, p in records(folder)}
    families = {
        "More steps against one (exploratory)": {
            f"toy 2 chain {o} - 1 step": (final[o, 1], final[o, 2]) for o in ("gepa", "mipro")
        },
        "Optimizers at equal budgets (exploratory)": {
            f"toy {k} chain gepa - mipro": (final["mipro", k], final["gepa", k]) for k in (1, 2)
        },
    }
    for title, pairs in families.items():
        p_values = []
        for first, second in pairs.values():
            one_sided = mid_p(int((first < second).sum()), int((first > second).sum()))
            p_values.append(min(1.0, 2 * min(one_sided, 1 - one_sided)))
        # Steps are one family; optimizers are one a benchmark and step, here of one pair each.
        adjusted = multipletests(p_values, method="holm")[1] if title.startswith("More") else p_values
        expected = [
            [name, points(second.mean() - first.mean(), True), ends(newcombe_paired(first, second), True), f"{p:.3f}"]
            for (name, (first, second)), p in zip(pairs.items(), adjusted, strict=True)
        ]
        assert sorted([row[0], *row[2:5]] for row in found[title]) == sorted(expected)
    said = {row[1] for title in families for row in found[title]}
    assert said and all(words.startswith("on these rows: ") or words == "cannot tell" for words in said)  # one run


def test_the_average_of_an_optimizer_is_the_mean_of_its_changes(folder: Path) -> None:
    rows = {row[0]: row for row in tables((folder / "report.html").read_text())[
        "Average improvement of each optimizer (exploratory)"]}  # fmt: skip
    changes: dict[str, list[float]] = {}
    for record, by_program in records(folder):
        if (optimizer := record["cell"]["optimizer"]) != "none":
            change = right(by_program["final"]).mean() - right(by_program["baseline"]).mean()
            changes.setdefault(optimizer, []).append(change)
    assert rows
    for name, row in rows.items():
        mine = changes[name.split()[0]]
        assert float(row[2]) == pytest.approx(100 * np.mean(mine), abs=0.051)  # one decimal
        hurt = sum(change < 0 for change in mine)
        assert row[-1].startswith(f"hurt in {100 * hurt / len(mine):.0f} % ")


def test_no_table_is_left_untraced(folder: Path) -> None:
    """The tables above, and two that hold no number here: nothing to fit, and no verdict from one run."""
    found = tables((folder / "report.html").read_text())
    assert set(found) == {
        "Verdicts", "Scores", "What stays unequal", "Money", "How much selection flatters",
        "Improvement by optimization (exploratory)", "Average improvement of each optimizer (exploratory)",
        "More steps against one (exploratory)",
        "Optimizers at equal budgets (exploratory)", "Shapes and fits", "Cells without a score",
        "Estimate against actual", "Cost by model",
    }  # fmt: skip
    assert all(row[3:9] == ["—"] * 6 for row in found["Verdicts"])
    assert all(row[4:7] == ["", "—", "—"] for row in found["Shapes and fits"])


def test_how_much_selection_flatters(folder: Path) -> None:
    rows = tables((folder / "report.html").read_text())["How much selection flatters"]
    for row, (record, _) in zip(
        rows, [(r, p) for r, p in records(folder) if r["cell"]["optimizer"] != "none" and not r["unchanged"]],
        strict=True,
    ):  # fmt: skip
        select = record["val_final_score"] - record["val_baseline_score"]
        test = record["final_score"] - record["baseline_score"]
        assert row[3:6] == [points(select, True), points(test, True), points(select - test, True)]


def test_cells_without_a_score_are_missing_and_never_0(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    rows = tables(page)["Cells without a score"]
    assert sorted((row[6], row[7]) for row in rows) == [
        ("budget", "the next call may cost $0.001"),
        ("invalid", "9.0 % of test examples failed"),
        ("not run", "planned, no record yet"),
    ]
    assert "3 of 8 cells have no score" in page
    assert len(tables(page)["Scores"]) == len(CELLS)
    summary = (folder / "summary_results.csv").read_text().splitlines()
    place = summary[0].split(",").index("final_score")
    assert [line.split(",")[place] for line in summary if ",invalid," in line or ",budget," in line] == ["", ""]


def test_estimates_stand_beside_what_was_used(folder: Path) -> None:
    rows = tables((folder / "report.html").read_text())["Estimate against actual"]
    calls = 0
    for record, _ in records(folder):
        cell = record["cell"]
        planned = read(folder / "results" / f"{cell['optimizer']}{cell['steps']}" / "plan.json")[record["cell_id"]]
        used = sum(part["calls"] for part in record["usage"].values())
        row = next(row for row in rows if row[1:3] == [f"{cell['steps']}step", cell["optimizer"]])
        assert row[4:6] == [" to ".join(dict.fromkeys(f"{value:,}" for value in planned["calls"])), f"{used:,}"]
        calls += used
    assert rows[-1][0] == "all" and rows[-1][5] == f"{calls:,}"


def test_the_cost_by_model_is_the_sum_of_its_records(folder: Path) -> None:
    """Those without a score, too: they were paid for."""
    (row,) = tables((folder / "report.html").read_text())["Cost by model"]
    every = [read(path) for path in (folder / "results").rglob("results.json")]
    phases = [record["usage"][phase] for record in every for phase in ("optimize", "evaluate")]
    list_cost = {name: sum(record["usage"][name]["list_cost_usd"] for record in every) for name in every[0]["usage"]}
    assert row[:3] == ["toy/priced", str(len(CELLS) + 2), f"{sum(phase['calls'] for phase in phases):,}"]
    assert row[5] == f"{list_cost['optimize']:.4f}" and row[7] == f"{list_cost['evaluate']:.4f}"
    assert row[8] == f"{sum(list_cost.values()):.4f}"


def test_the_first_lines_say_what_was_learnt_and_how_sure_it_is(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    lead = re.search(r'<p class="lead">(.*?)</p>', page, re.S).group(1)
    assert "can show" in lead and "points or more" in lead
    questions = re.search(r'<ul class="lead" id="questions">(.*?)</ul>', page, re.S).group(1)
    said = re.findall("<li>(.*?)</li>", questions, re.S)
    asked = ("H1", "H2", "H3", "H4", "improvement", "optimizers")
    assert [line.split()[0].strip(":") for line in said] == list(asked)
    assert all("Cannot tell: " in line for line in said[:4])  # one run
    assert all("95 % interval [" in line for line in said[4:])
    chosen = re.search(r'<h2 id="recommended">.*?<li>(.*?)</li>', page, re.S).group(1)
    best = max(records(folder), key=lambda pair: right(pair[1]["check"]).mean())[0]
    assert points(best["final_score"]) in chosen and "no optimizer saw" in chosen


def test_the_report_needs_no_network_and_shows_prompts_and_answers(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "<ins>" in page and "<del>" in page
    assert "wrong to right" in page


def test_the_latex_tables_are_those_of_the_report(folder: Path) -> None:
    page, tex = (folder / "report.html").read_text(), (folder / "summary_results.tex").read_text()
    written = {title: [[cell.strip() for cell in row] for row in rows[1:]] for title, rows in latex_tables(tex).items()}
    shown = {title: [[cell.strip() for cell in row] for row in rows] for title, rows in tables(page).items()}
    assert written == shown
    assert tex.count(r"\begin{table}") == tex.count(r"\end{table}") == len(shown)
    for title, rows in latex_tables(tex).items():
        assert {len(row) for row in rows} == {len(rows[0])}, title


HOSTILE = "to|y <img src=x onerror=alert(1)> [go](http://x) 50% $^a_b{c}$~ \x1b[31mred"


def test_names_and_errors_from_outside_have_no_power_over_the_report(folder: Path, tmp_path: Path) -> None:
    for source in (folder / "results").glob("*/results.json"):
        home = shutil.copytree(source.parent, tmp_path / "results" / source.parent.name)
        record = read(home / "results.json")
        record["cell"]["benchmark"] = HOSTILE
        if record["error"]:
            record["error"]["message"] = HOSTILE
        (home / "results.json").write_text(json.dumps(record))
    assert analyze_results.main(["--results-dir", str(tmp_path / "results"), "--output-dir", str(tmp_path)]) == 0
    page, text, tex = (
        (tmp_path / name).read_text() for name in ("report.html", "summary_results.md", "summary_results.tex")
    )
    assert all("\x1b" not in written for written in (page, text, tex))
    assert "<img src=x" not in page and "<img src=x" not in text
    assert "](http" not in re.sub(r"\\.", "", text)
    plain = HOSTILE.replace("\x1b[31m", "")
    assert [row[0] for row in tables(page)["Scores"]] == [plain] * len(CELLS)
    assert [row[0].strip() for row in latex_tables(tex)["Scores"][1:]] == [plain] * len(CELLS)
    for block in (part for part in text.split("\n\n") if part.startswith("|")):
        assert len({re.sub(r"\\.", "", line).count("|") for line in block.splitlines()}) == 1
    assert len(list((tmp_path / "visualizations").glob("scaling_curve_to-y-*.png"))) == 1


@pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")), reason="no chromium and chromedriver here"
)
def test_the_report_opens_and_sorts_in_a_browser(folder: Path, request: pytest.FixtureRequest) -> None:
    """Debian's packages chromium and chromium-driver, driven by selenium; also by keyboard and on a phone's width."""
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=400,800"):
        options.add_argument(flag)
    options.binary_location = shutil.which("chromium")
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    request.addfinalizer(browser.quit)
    browser.get((folder / "report.html").as_uri())

    def column() -> list[float]:
        table = browser.execute_script("return document.querySelector('#t1').nextElementSibling.nextElementSibling")
        cells = table.find_elements("css selector", "tbody td:nth-child(5)")
        return [float(cell.text) for cell in cells]

    heads = browser.execute_script(
        "return [...document.querySelector('#t1').nextElementSibling.nextElementSibling.querySelectorAll('th button')]"
    )
    heads[4].send_keys("\ue007")  # Enter, as one does without a mouse
    assert column() == sorted(column())
    heads[4].click()
    assert column() == sorted(column(), reverse=True)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
