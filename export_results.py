#!/usr/bin/env python
"""Give results to other programs: `--to` writes a sweep's records in their formats, `--as` one cell's program.

`python export_results.py results --to parquet` and `python export_results.py CELL --as litellm --check`, where CELL is
the folder of a cell. docs/export.md says what each format holds.
"""

from __future__ import annotations

from scaling import interrupt

interrupt.end_at_once(__name__)  # until `main`

import os
import sys
from argparse import Namespace
from pathlib import Path

from scaling.arguments import ArgumentParser, check_output_folder, number, one_line_errors
from scaling.dotenv import load_dotenv_file
from scaling.export.cells import read_sweep
from scaling.export.targets import TARGETS, check_installed, export
from scaling.export.texts import Texts
from scaling.portable.formats import FORMATS
from scaling.redact import redact, remember, secret_variables
from scaling.types import EXIT_FAILED, EXIT_OK, UsageError

OUT = Path("export")


@one_line_errors
def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code (0 well, 1 the exported program scores another score, 2 usage)."""
    options = _parsed(argv)
    interrupt.end_in_order()
    load_dotenv_file()
    remember(*secret_variables(os.environ).values())
    if options.out is not None:
        check_output_folder(options.out, "--out")
    return _export_program(options) if options.form else _export_sweep(options)


def _parsed(argv: list[str] | None) -> Namespace:
    parser = ArgumentParser(__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a results folder; with --as the folder of a cell")
    what = parser.add_mutually_exclusive_group(required=True)
    targets = "; ".join(f"{target.name}: {target.what}" for target in TARGETS.values())
    what.add_argument("--to", choices=list(TARGETS), help=f"write the records for another program ({targets})")
    formats = "; ".join(f"{form.name}: {form.what}" for form in FORMATS.values())
    what.add_argument("--as", choices=list(FORMATS), dest="form",
                      help=f"write the optimized program of one cell ({formats})")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="where files go (export; a tracker's own choice for mlflow and wandb)")  # fmt: skip
    parser.add_argument("--texts", choices=("answers", "rows", "all"), default="answers",
                        help="texts of rows that go out with --to: right answers (default) or also the rows, as far as "
                             "their licence allows; or all, for yourself")  # fmt: skip
    parser.add_argument(
        "--data", metavar="hub|sample|DIR|FILE.csv", help="where the rows are (where the cell had them)"
    )
    check = parser.add_argument_group("with --as")
    check.add_argument("--check", action="store_true", help="score the exported program on the same rows")
    check.add_argument("--max-cost", type=number, metavar="USD", help="the most that the results folder may cost")
    check.add_argument("--api-base", metavar="URL", help="the server of the cell's model")
    check.add_argument("--models-file", type=Path, metavar="FILE.toml", help="more models, as for the sweep")
    check.add_argument("--models-dir", type=Path, metavar="DIR", help="where the files of local models are")
    options = parser.parse_args(argv)
    if options.check and not options.form:
        raise UsageError("--check scores the program of a cell. Type it with --as.")
    return options


def _export_sweep(options: Namespace) -> int:
    target = TARGETS[options.to]
    check_installed(target, "--to")
    texts = Texts(options.texts, options.data)
    out = options.out if target.is_tracker else options.out or OUT
    print(export(target, read_sweep(options.folder, _entries(options.data), texts, _tell), out))
    return EXIT_OK


def _export_program(options: Namespace) -> int:
    from scaling.command import program_export  # DSPy, which exporting records does not need

    model = program_export.ModelOptions(
        options.data, options.api_base, options.models_file, options.models_dir, options.max_cost
    )
    entries = _entries(options.data)
    found = program_export.find_cell(options.folder, entries, model)
    for path in program_export.write_program(found, FORMATS[options.form], entries, options.out or OUT):
        print(f"wrote {path}")
    if not options.check:
        return EXIT_OK
    comparison, meter = program_export.check_program(found, model)
    print("\n".join(program_export.check_lines(found, comparison, meter)))
    low, high = comparison.difference_ci95 or (0.0, 0.0)
    return EXIT_OK if low <= 0.0 <= high else EXIT_FAILED


def _entries(data: str | None) -> dict[str, dict[str, object]]:
    """The benchmarks that are known, with the licences of their rows; a user's own is in `data`, a CSV file."""
    from benchmarks import own_csv
    from run_scaling_experiment import BENCHMARK_CONFIG

    is_file = data is not None and data.lower().endswith(".csv")
    return BENCHMARK_CONFIG | ({Path(data).stem: own_csv.entry(Path(data))} if data and is_file else {})


def _tell(line: str) -> None:
    print(redact(line), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
