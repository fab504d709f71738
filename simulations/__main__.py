"""`make simulate`: every procedure at full size (some minutes), the figures kept in simulations/RESULTS.md.

Those of sequential designs are in simulations/sequential.csv, too.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from pathlib import Path

import numpy as np

from simulations.outcome import Outcome
from simulations.procedures import PROCEDURES
from simulations.study_rows import write_studies

RESULTS = Path(__file__).parent / "RESULTS.md"
STUDIES = Path(__file__).parent / "sequential.csv"


def main(argv: list[str] | None = None) -> int:
    """Runs all procedures and writes their figures; returns 1 when one is outside its range."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=1000, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    options = parser.parse_args(argv)
    outcomes: list[Outcome] = []
    for number, procedure in enumerate(PROCEDURES):
        for outcome in procedure(np.random.default_rng((options.seed, number)), options.repeats):
            outcomes.append(outcome)
            print(_line(outcome), flush=True)
    failed = [outcome for outcome in outcomes if not outcome.passed]
    head = [
        "# What the statistical procedures do on data with a known truth",
        "",
        f"{options.repeats} repeats each, seed {options.seed}, {datetime.date.today()}, by `make simulate`.",
        f"Accepted: the 99.9 % band around the plan's target. {len(outcomes) - len(failed)} of {len(outcomes)} inside.",
        "",
        "| procedure | observed (%) | accepted | |",
        "|---|---|---|---|",
    ]
    RESULTS.write_text("\n".join([*head, *map(_line, outcomes)]) + "\n", encoding="utf-8")
    write_studies(STUDIES, [row for outcome in outcomes for row in outcome.studies])
    return 1 if failed else 0


def _line(outcome: Outcome) -> str:
    place = "inside" if outcome.passed else "**outside**"
    return f"| {outcome.what} | {outcome.observed:.2f} | {outcome.low:.1f} to {outcome.high:.1f} | {place} |"


if __name__ == "__main__":
    sys.exit(main())
