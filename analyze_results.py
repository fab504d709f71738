#!/usr/bin/env python
"""Turn the records of one or more results folders into figures, tables, tests and a report.

`python analyze_results.py` reads results/ and writes visualizations/, summary_*.csv, summary_results.md and
report.html beside it. It can be run again at any time and never calls a model.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from scaling.types import EXIT_OK, EXIT_USAGE, UsageError

FORMATS = ("png", "pdf", "svg")


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code (0 well, 2 usage)."""
    options = parse(argv)
    try:
        written = analyze(options.results_dir, options.output_dir, options.format)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    print("\n".join(f"wrote {path}" for path in written))
    return EXIT_OK


def analyze(folders: list[Path], output: Path, formats: list[str]) -> list[Path]:
    """Write everything that the records under `folders` support into `output`; returns the paths written."""
    from scaling import report, summary, tables  # pandas and its friends start slowly; --help does not need them
    from scaling.hypotheses import test_hypotheses

    results = tables.load(folders)
    frame = summary.summarise(results)
    tests, refused = test_hypotheses(results)
    notes = report.notes_of(results, frame, refused)
    output.mkdir(parents=True, exist_ok=True)
    pictures = draw(results, frame, output / "visualizations", formats) if not frame.empty else {}
    names = {name: output / name for name in ("summary_results.csv", "summary_tests.csv", "summary_fits.csv")}
    everything = [frame, results.cells[results.cells["status"] != "ok"]]
    concat = [part for part in everything if not part.empty]
    _csv(concat[0] if len(concat) == 1 else _joined(concat), names["summary_results.csv"])
    _csv(tests, names["summary_tests.csv"])
    _csv(fits_frame(results), names["summary_fits.csv"])
    report.write_markdown(output / "summary_results.md", results, frame, tests, notes)
    report.write_html(output / "report.html", results, frame, tests, notes, pictures)
    return [*pictures, *names.values(), output / "summary_results.md", output / "report.html"]


def draw(results, frame, folder: Path, formats: list[str]) -> dict[Path, str]:
    """Draw every figure; returns the PNG (or first format's) paths with a sentence on what each shows."""
    import matplotlib.pyplot as plt

    from scaling import figures, report

    figures.theme()
    folder.mkdir(parents=True, exist_ok=True)
    chain = frame[frame["pipeline"] == "chain"]
    curves = results.cells[(results.cells["status"] == "ok") & (results.cells["optimizer"] != "none")]
    planned = {
        "scaling_curves_overall": (
            lambda: figures.scaling_curves_overall(frame),
            "Test score against steps, all benchmarks",
        )
    }
    for name in sorted(frame["benchmark"].unique()):
        alt = f"Test score against steps on {name}"
        planned[f"scaling_curve_{name}"] = (lambda name=name: figures.one_scaling_curve(frame, name), alt)
    for name in sorted(set(chain["optimizer"]) - {"none"}):
        alt = f"Improvement by {name} over the same program before optimization"
        planned[f"improvement_heatmap_{name}"] = (lambda name=name: figures.improvement_heatmap(frame, name), alt)
    if not chain.empty:
        planned["optimizer_comparison"] = (lambda: figures.optimizer_comparison(frame), "Optimizers side by side")
    if not curves.empty:
        alt = "Best score on the rows that candidates are selected on, against rollouts; not a test score"
        planned["learning_curves"] = (lambda: figures.learning_curves(results, curves), alt)
    planned["cost_quality"] = (lambda: figures.cost_quality(frame), "Test score against the cost of an answer")
    small_print = "Bars: 95 % intervals. " + " ".join(report.notes_of(results, frame, []))
    written = {}
    for name, (make, alt) in planned.items():
        figure = figures.footer(make(), small_print)
        for form in formats:
            # A fixed salt and no date: the same records give the same bytes.
            figure.savefig(folder / f"{name}.{form}", metadata={} if form == "png" else {"Creator": None})
        plt.close(figure)
        written[folder / f"{name}.{formats[0]}"] = alt
    return written


def fits_frame(results):
    """summary_fits.csv: the shape of each series over its steps; a line in log2(steps) as a description."""
    import pandas as pd

    from scaling.fits import log_line, shape_label
    from scaling.hypotheses import arms_of
    from scaling.stats import contrast, run_variances

    columns = ["benchmark", "x", "family", "parameters", "ci_low", "ci_high", "r2", "verdict", "reason"]
    arms, _ = arms_of(results)
    between = run_variances(list(arms.values()))
    rows = []
    for series in dict.fromkeys(series for series, _ in arms):
        by_steps = {steps: arm for (other, steps), arm in arms.items() if other == series}
        steps = sorted(by_steps)
        arm = by_steps[steps[0]]
        row = dict.fromkeys(columns) | {"benchmark": f"{arm.benchmark} {arm.optimizer}", "x": "steps"}
        if len(steps) < 3:
            rows.append(row | {"verdict": "not run", "reason": f"{len(steps)} points: a shape needs 3"})
            continue
        middle = 3 if 3 in by_steps else steps[len(steps) // 2]
        early = contrast([(1.0, by_steps[middle]), (-1.0, by_steps[steps[0]])], between)
        late = contrast([(1.0, by_steps[steps[-1]]), (-1.0, by_steps[middle])], between)
        intercept, slope, r2 = log_line(steps, [by_steps[k].mean for k in steps])
        reason = "one run: about these programs only" if arm.runs == 1 else ""
        row |= {"family": "log2(steps), described", "parameters": f"{intercept:.4f} + {slope:.4f} a doubling", "r2": r2}
        rows.append(row | {"verdict": shape_label(early, late), "reason": reason})
    return pd.DataFrame(rows, columns=columns)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--results-dir", nargs="+", type=Path, default=[Path("results")], metavar="DIR")
    parser.add_argument("--output-dir", type=Path, default=Path("."), metavar="DIR", help="default: here")
    parser.add_argument("--format", nargs="+", choices=FORMATS, default=["png"], help="of the figures (png)")
    return parser.parse_args(argv)


def _csv(frame, path: Path) -> None:
    frame.drop(columns=[c for c in ("line", "row_name") if c in frame]).to_csv(path, index=False)


def _joined(parts):
    import pandas as pd

    return pd.concat(parts, ignore_index=True)[list(parts[0].columns)]


if __name__ == "__main__":
    sys.exit(main())
