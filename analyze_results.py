#!/usr/bin/env python
"""Turn the records of one or more results folders into figures, tables, tests and a report.

`python analyze_results.py` reads results/ and writes visualizations/, summary_*.csv, summary_results.md and
report.html beside it. It can be run again at any time and never calls a model.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path

from scaling.types import EXIT_OK, EXIT_USAGE, UsageError

FORMATS = ("png", "pdf", "svg")
MANY_ENTRIES = 200  # above it figures are drawn in two processes


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code (0 well, 2 usage)."""
    options = parse(argv)
    try:
        written = analyze(options.results_dir, options.output_dir, options.format, options.value_per_correct,
                          options.per_dollar)  # fmt: skip
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    print("\n".join(f"wrote {path}" for path in written))
    return EXIT_OK


def analyze(
    folders: list[Path],
    output: Path,
    formats: list[str],
    value_per_correct: float | None = None,
    per_dollar: bool = False,
) -> list[Path]:
    """Write everything that the records under `folders` support into `output`; returns the paths written.

    value_per_correct: dollars that one more right answer is worth. per_dollar: recommend the cheapest cell that is
    not clearly worse than the best.
    """
    from scaling.analysis import report  # pandas and its friends start slowly; --help does not need them

    findings = find(folders, value_per_correct, per_dollar)
    output.mkdir(parents=True, exist_ok=True)
    pictures = draw(findings, output / "visualizations", formats) if not findings.summary.empty else {}
    tables = {
        "summary_results.csv": _with_missing(findings),
        "summary_tests.csv": findings.tests,
        "summary_fits.csv": findings.fits,
    }
    for name, frame in tables.items():
        frame.to_csv(output / name, index=False)
    report.write_markdown(output / "summary_results.md", findings)
    report.write_latex(output / "summary_results.tex", findings)
    report.write_html(output / "report.html", findings, pictures)
    others = ("summary_results.md", "summary_results.tex", "report.html")
    return [*pictures, *(output / name for name in (*tables, *others))]


def find(folders: list[Path], value_per_correct: float | None, per_dollar: bool):
    """Everything that the records support, as frames (`report.Findings`)."""
    import pandas as pd

    from scaling.analysis import comparisons, fit_table, money, report, research, summary
    from scaling.analysis import results as tables

    results = tables.load(folders)
    entries = comparisons.entries_of(results)
    frame = summary.summarise(results, entries)
    tests, refused = comparisons.tests_frame(results, entries)
    turned = research.turned_cells(results, entries)
    gains = research.gains_of(results, entries, turned)
    asked = pd.DataFrame(research.test_research(gains, value_per_correct), columns=tests.columns)
    fits = [fit_table.fits_frame(entries), fit_table.gain_fits(gains)]
    return report.Findings(
        results=results,
        entries=entries,
        summary=frame,
        tests=tests if asked.empty else pd.concat([tests, asked], ignore_index=True),
        fits=pd.concat([part for part in fits if not part.empty] or fits[:1], ignore_index=True),
        turned=turned,
        gains=gains,
        costs=money.costs(results, entries, frame, value_per_correct),
        refused=refused,
        value=value_per_correct,
        per_dollar=per_dollar,
    )


def draw(findings, folder: Path, formats: list[str]) -> dict[Path, str]:
    """Draw every figure in every format; returns the PNG (or first format's) paths with a sentence on each."""
    from scaling.analysis import figures, report

    figures.theme()
    folder.mkdir(parents=True, exist_ok=True)
    small_print = "Bars: 95 % intervals. " + " ".join(report.notes_of(findings.results, findings.summary))
    shown = "png" if "png" in formats else formats[0]
    planned = planned_figures(findings)

    def save(name: str) -> None:
        figures.save(figures.footer(planned[name][0](), small_print), folder / name, formats)

    if len(findings.entries) > MANY_ENTRIES and hasattr(os, "fork"):
        _in_two_processes(save, list(planned))
    else:
        for name in planned:
            save(name)
    return {folder / f"{name}.{shown}": alt for name, (_, alt) in planned.items()}


def _in_two_processes(save: Callable[[str], None], names: list[str]) -> None:
    """Draw half of the figures in a child of this process, which has all data already."""
    child = multiprocessing.get_context("fork").Process(target=lambda: [save(name) for name in names[1::2]])
    child.start()
    for name in names[::2]:
        save(name)
    child.join()
    if child.exitcode:
        raise RuntimeError("a figure could not be drawn; its error is above")


def planned_figures(findings) -> dict:
    """Name -> (what draws it, a sentence on it), for the figures that these records can fill."""
    from scaling.analysis import figures, research

    frame, cells = findings.summary, findings.results.cells
    fits = _families_by_line(findings)
    planned = {
        "scaling_curves_overall": (
            lambda: figures.scaling_curves_overall(frame, fits),
            "Test score against steps, all benchmarks",
        )
    }
    for name in sorted(frame["benchmark"].unique()):
        alt = f"Test score against steps on {name}"
        planned[f"scaling_curve_{_file(name)}"] = (lambda name=name: figures.one_scaling_curve(frame, name, fits), alt)
    chain = frame[frame["pipeline"] == "chain"]
    for name in sorted(set(chain["optimizer"]) - {"none"}):
        alt = f"Change by {name} over the same program before optimization"
        planned[f"improvement_heatmap_{name}"] = (lambda name=name: figures.improvement_heatmap(frame, name), alt)
    if not chain.empty:
        planned["optimizer_comparison"] = (lambda: figures.optimizer_comparison(frame), "Optimizers side by side")
    curves = cells[(cells["status"] == "ok") & (cells["optimizer"] != "none")]
    for axis, name in (("rollouts", ""), ("lm_calls", "_calls"), ("list_cost_usd", "_usd")):
        if not curves.empty and (axis != "list_cost_usd" or (curves["optimize_list_cost_usd"].astype(float) > 0).all()):
            against = figures.CURVE_AXES[axis]
            alt = f"Best score on the rows that candidates are selected on, against {against}; no test score"
            planned[f"learning_curves{name}"] = (
                lambda axis=axis: figures.learning_curves(findings.results, curves, axis), alt
            )  # fmt: skip
    if findings.turned:
        planned["turn_curves"] = (lambda: figures.turn_curves(findings.turned), "Score of each turn of self-correction")
    if research.size_line_of(findings.gains, ("published", "assumed"))[1] is not None:
        alt = "Gain of self-correction against model size; hollow: sizes that are assumed, no part of the line"
        planned["gain_against_size"] = (lambda: figures.gain_against_size(findings.gains), alt)
    planned["cost_quality"] = (lambda: figures.cost_quality(frame), "Test score against the cost of an answer")
    return planned


def _families_by_line(findings) -> dict:
    """(benchmark, line) -> fitted families, for the series with five points."""
    from scaling.analysis import fit_table
    from scaling.analysis.stats import run_variances

    between = run_variances([entry.final for entry in findings.entries])
    lines = {
        str(e.fields): row["line"] for e, (_, row) in zip(findings.entries, findings.summary.iterrows(), strict=True)
    }
    found = {}
    for by_steps in fit_table.series_of(findings.entries):
        fields = next(iter(by_steps.values())).fields
        found[fields["benchmark"], lines[str(fields)]] = fit_table.fitted(by_steps, between)
    return found


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--results-dir", nargs="+", type=Path, default=[Path("results")], metavar="DIR")
    parser.add_argument("--output-dir", type=Path, default=Path("."), metavar="DIR", help="default: here")
    parser.add_argument("--format", nargs="+", choices=FORMATS, default=["png"], help="of the figures (png)")
    parser.add_argument(
        "--value-per-correct", type=float, metavar="USD", help="what one more right answer is worth: when does it pay?"
    )
    parser.add_argument(
        "--per-dollar", action="store_true", help="recommend the cheapest cell that is not clearly worse than the best"
    )
    return parser.parse_args(argv)


def _with_missing(findings):
    """The summary, and under it the cells without a score."""
    import pandas as pd

    cells = findings.results.cells
    bad = cells[cells["status"] != "ok"]
    summary = findings.summary.drop(columns=[c for c in ("line", "row_name") if c in findings.summary])
    if summary.empty or bad.empty:
        return bad if summary.empty else summary
    return pd.concat([summary, bad.reindex(columns=summary.columns)], ignore_index=True)


def _file(name: str) -> str:
    return name.replace("/", "-")


if __name__ == "__main__":
    sys.exit(main())
