#!/usr/bin/env python
"""Turn the records of one or more results folders into figures, tables, tests and a report.

`python analyze_results.py` reads results/ and writes visualizations/, summary_*.csv, summary_results.md and
report.html beside it. It can be run again at any time and never calls a model. `python analyze_results.py compare A B`
says which of several results is better, whichever program wrote them.
"""

from __future__ import annotations

from scaling import interrupt

interrupt.end_at_once(__name__)  # all that it writes is written whole or not at all

import argparse
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scaling.arguments import ArgumentParser, check_output_folder, number, one_line_errors, positive_number
from scaling.sequential import INTERIM
from scaling.types import EXIT_OK

if TYPE_CHECKING:
    import pandas as pd

    from scaling.analysis.figures import Picture
    from scaling.analysis.findings import Findings

COMPARE = "compare"  # the first word of a comparison with other programs' results
FORMATS = ("png", "pdf", "svg")
MANY_ENTRIES = 200  # above it figures are drawn in two processes


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code (0 well, 2 usage)."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == [COMPARE]:
        from scaling.compare import command  # with pandas and its friends

        return command.main(argv[1:])
    options = parse(argv)
    written = analyze(options.results_dir, options.output_dir, options.format, options.value_per_correct,
                      options.per_dollar, options.at_size)  # fmt: skip
    print("\n".join(f"wrote {path}" for path in written))
    return EXIT_OK


def analyze(
    folders: list[Path],
    output: Path,
    formats: list[str],
    value_per_correct: float | None = None,
    per_dollar: bool = False,
    at_sizes: Sequence[float] = (),
) -> list[Path]:
    """Write everything that the records under `folders` support into `output`; returns the paths written.

    value_per_correct: dollars that one more right answer is worth. per_dollar: recommend the cheapest cell that is
    not clearly worse than the best. at_sizes: billions of parameters to expect a score at.
    """
    from scaling.analysis import report, runs, sequential  # slow to load, and --help does not need them

    check_output_folder(output)
    findings = find(folders, value_per_correct, per_dollar, at_sizes)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=output):
        pass  # raises OSError before anything is drawn
    has_scores = not (findings.summary.empty and findings.transfers.empty)
    pictures = draw(findings, output / "visualizations", formats) if has_scores else {}
    tables = {
        "summary_results.csv": _with_missing(findings),
        "summary_tests.csv": findings.tests,
        "summary_fits.csv": findings.fits,
        "summary_breakdowns.csv": findings.breakdowns,
        "summary_transfer.csv": findings.transfers,
        "summary_runs.csv": runs.runs_frame(findings.results),
    }
    for name, frame in tables.items():
        frame.to_csv(output / name, index=False)
    written = report.report_of(findings)
    report.write_markdown(output / "summary_results.md", written)
    report.write_latex(output / "summary_results.tex", written)
    report.write_html(output / "report.html", written, findings, pictures)
    others = ("summary_results.md", "summary_results.tex", "report.html")
    for note in sequential.notes_of_studies(findings.results.sequential):
        print(note)
    return [*pictures, *(output / name for name in (*tables, *others))]


def find(
    folders: list[Path], value_per_correct: float | None, per_dollar: bool, at_sizes: Sequence[float] = ()
) -> Findings:
    """Everything that the records support."""
    import pandas as pd

    from scaling.analysis import answers, breakdowns, findings, fit_table, loading, model_comparisons, money, summary
    from scaling.analysis.test_rows import frame_of
    from scaling.analysis.transfer import matrix_of

    results = loading.load(folders)
    evidence = answers.evidence_of(results, value_per_correct)
    entries, gains = evidence.entries, evidence.gains
    frame = summary.summarise(results, entries)
    rows, refused = answers.tests_of(evidence)
    tests = frame_of(rows)
    models = model_comparisons.model_scores(results, entries, frame, tests)
    if at_sizes and models.empty:
        refused = [*refused, "scores at other model sizes: no program was run by two models"]
    fits = [fit_table.fits_frame(entries), fit_table.score_fits(models, at_sizes), fit_table.gain_fits(gains)]
    return findings.Findings(
        results=results,
        entries=entries,
        summary=frame,
        tests=tests,
        answers=answers.answers_of(rows, answers.asked_of(results)),
        fits=pd.concat([part for part in fits if not part.empty] or fits[:1], ignore_index=True),
        curves=fit_table.curves_of(entries, frame),
        turned=evidence.turned,
        gains=gains,
        costs=money.costs(results, entries, frame, value_per_correct),
        breakdowns=breakdowns.breakdowns_of(results, entries, frame),
        transfers=matrix_of(evidence.transfers),
        models=models,
        refused=refused,
        value=value_per_correct,
        per_dollar=per_dollar,
    )


def draw(findings: Findings, folder: Path, formats: list[str]) -> dict[Path, str]:
    """Draw every figure in every format; returns the PNG (or first format's) paths with a sentence on each."""
    from scaling.analysis import figure_style, figures, sentences

    figure_style.theme()
    folder.mkdir(parents=True, exist_ok=True)
    small_print = "Bars: 95 % intervals. " + " ".join(sentences.notes_of(findings.results, findings.summary))
    mark = INTERIM if findings.results.is_interim else ""
    pictures = figures.pictures_of(findings)

    def save(picture: figures.Picture) -> None:
        figure = figure_style.footer(figure_style.marked(picture.draw(), mark), small_print)
        figure_style.save(figure, folder / picture.name, formats)

    if len(findings.entries) > MANY_ENTRIES and hasattr(os, "fork"):
        _in_two_processes(save, pictures)
    else:
        for picture in pictures:
            save(picture)
    shown = "png" if "png" in formats else formats[0]
    caption = f"{{}} ({mark})" if mark else "{}"
    return {folder / f"{picture.name}.{shown}": caption.format(picture.caption) for picture in pictures}


def _in_two_processes(save: Callable[[Picture], None], pictures: list[Picture]) -> None:
    """Draw half of the figures in a child of this process, which has all data already."""

    def save_all(part: list[Picture]) -> None:
        for picture in part:
            save(picture)

    child = multiprocessing.get_context("fork").Process(target=save_all, args=(pictures[1::2],))
    child.start()
    save_all(pictures[::2])
    child.join()
    if child.exitcode:
        raise RuntimeError("a figure could not be drawn; its error is above")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line's options."""
    parser = ArgumentParser(__doc__)
    parser.epilog = f"{parser.prog} {COMPARE} A B: which of several results is better; {COMPARE} --help says more"
    parser.add_argument(
        "--results-dir",
        nargs="+",
        type=Path,
        default=[Path("results")],
        metavar="DIR",
        help="folders with records (results)",
    )
    parser.add_argument(
        "--output-dir",
        type=Path,
        default=Path("."),
        metavar="DIR",
        help="where tables and figures are written (the current folder)",
    )
    parser.add_argument(
        "--format", nargs="+", choices=FORMATS, default=["png"], help="file formats of the figures (png)"
    )
    parser.add_argument(
        "--value-per-correct",
        type=number,
        metavar="USD",
        help="what one more right answer is worth; says when an optimization has paid for itself",
    )
    parser.add_argument(
        "--at-size",
        nargs="+",
        type=positive_number,
        default=[],
        metavar="BILLIONS",
        help="sizes of models to expect a score at, in billions of parameters",
    )
    parser.add_argument(
        "--per-dollar", action="store_true", help="recommend the cheapest cell that is not clearly worse than the best"
    )
    return parser.parse_args(argv)


def _with_missing(findings: Findings) -> pd.DataFrame:
    """The summary, and under it the cells without a score."""
    import pandas as pd

    cells = findings.results.cells
    bad = cells[cells["status"] != "ok"]
    summary = findings.summary.drop(columns=[c for c in ("line", "row_name") if c in findings.summary])
    if summary.empty or bad.empty:
        return bad if summary.empty else summary
    return pd.concat([summary, bad.reindex(columns=summary.columns)], ignore_index=True)


if __name__ == "__main__":
    sys.exit(main())
