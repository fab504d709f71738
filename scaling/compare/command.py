"""Say which of several results is better: of this program, inspect, lm-eval, promptfoo and others.

`python analyze_results.py compare A B` matches their rows and prints what differs. A table of published means, without
rows, is summarized as what it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scaling.arguments import ArgumentParser, check_output_folder, positive_number, whole_number
from scaling.compare import published, rows, writing
from scaling.compare.options import BY_ID, BY_INPUT, FIELDS, Choices
from scaling.compare.published import Assumed
from scaling.readers.published import SYSTEM, is_published
from scaling.types import EXIT_OK, UsageError


def main(argv: list[str]) -> int:
    """The command line behind `compare`; returns the exit code (0 well). Raises UsageError."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.output_dir is not None:
        check_output_folder(options.output_dir)
    tables = [is_published(argument) for argument in options.results]
    if any(tables) and not all(tables):
        rowless = options.results[tables.index(True)]
        raise UsageError(f"{rowless} has means without rows. It can be compared with other such tables only.")
    if all(tables):
        found, text = published.compare(options.results, _of_tables(options), options.output_dir)
    else:
        found, text = rows.compare(options.results, _choices(options))
    print(text)
    if options.output_dir is not None:
        print("\n".join(f"wrote {path}" for path in writing.write(found, options.output_dir)))
    return EXIT_OK


def _parser() -> ArgumentParser:
    parser = ArgumentParser(__doc__)
    parser.prog = f"{parser.prog} compare"
    parser.add_argument("results", nargs="+", metavar="[NAME=]PATH", help="files or folders with results")
    parser.add_argument(
        "--output-dir", type=Path, metavar="DIR", help="write comparison.md, .html, .csv and .json there (nothing)"
    )
    parser.add_argument("--dataset", nargs="+", default=[], metavar="NAME", help="only these datasets (all)")
    parser.add_argument("--metric", metavar="NAME", help="which metric, where files have several")
    parser.add_argument(
        "--same", nargs="+", choices=FIELDS, default=[], metavar="FIELD",
        help="what is the same although the files call it differently: " + ", ".join(FIELDS),
    )  # fmt: skip
    parser.add_argument(
        "--match", choices=(BY_ID, BY_INPUT), help="how rows are matched (by id, or by input where that fits)"
    )
    parser.add_argument(
        "--group", metavar="FIELD",
        help="rows with one value of this field belong together (group, where there is one); input: rows that ask the "
             "same; none: all rows are independent",
    )  # fmt: skip
    parser.add_argument(
        "--scale", type=positive_number, default=1.0, metavar="MAX", help="the score of a perfect answer (1)"
    )
    tables = parser.add_argument_group("tables of published means, without rows")
    tables.add_argument(
        "--assume-n", nargs="+", type=_rows, default=[], metavar="[BENCHMARK=]N",
        help="how many rows a score is from, where the table does not say",
    )  # fmt: skip
    tables.add_argument(
        "--vary", choices=SYSTEM, default="optimizer", help="what differs between two compared scores (optimizer)"
    )
    tables.add_argument("--against", metavar="NAME", help="compare all with this one (the baseline, if there is one)")
    return parser


def _rows(text: str) -> tuple[str, int]:
    """'200' or 'hover=200'."""
    benchmark, sign, number = text.rpartition("=")
    rows = whole_number(number)
    if rows < 1 or (sign and not benchmark):
        raise argparse.ArgumentTypeError(f"'{text}' is no number of rows. Give N, or BENCHMARK=N")
    return benchmark, rows


def _choices(options: argparse.Namespace) -> Choices:
    return Choices(
        tuple(options.dataset), options.metric, tuple(options.same), options.match, options.group, options.scale
    )


def _of_tables(options: argparse.Namespace) -> Assumed:
    return Assumed(dict(options.assume_n), options.vary, options.against, options.scale)
