"""docs/findings.md from the records that are shipped in this folder: every number on the page comes from here.

`python -m examples.findings` writes the page and its figure; a test holds the page against the records.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analyze_results import analyze
from examples.contrasts import Contrast, Way, contrasts, minus, way
from scaling.analysis.comparisons import Entry, entries_of
from scaling.analysis.loading import load
from scaling.analysis.results import Results
from scaling.analysis.stats import Weighted

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "findings.md"
FIGURE = HERE.parent / "docs" / "calls_or_votes.png"
VOTES, OPTIMIZERS = (HERE / name / "records" for name in ("calls-or-votes", "optimizers"))


@dataclass(frozen=True)
class Study:
    """What the page says of a study. calls: those that were answered; hours: of answering, summed over calls."""

    ways: list[Way]
    contrasts: list[Contrast]
    rows: int
    runs: int
    calls: int
    hours: float


@dataclass(frozen=True)
class Optimizers(Study):
    """kept: by optimizer, the cells whose program after optimization is the one before; tried, accepted: proposals."""

    cells: dict[str, int]
    kept: dict[str, int]
    tried: dict[str, int]
    accepted: dict[str, int]


def votes_of(folder: Path = VOTES) -> Study:
    """One call, a vote of 3 and a chain of 3."""
    results = load([folder])
    entries = {(entry.series.pipeline, entry.steps): entry for entry in entries_of(results)}
    one, chain, vote = (entries[key] for key in (("chain", 1), ("chain", 3), ("vote", 3)))
    planned = {
        "chain of 3 minus 1 call": minus(chain.final, one.final),
        "vote of 3 minus 1 call": minus(vote.final, one.final),
        "chain of 3 minus vote of 3": minus(chain.final, vote.final),
    }
    ways = [way("1 call", one, results), way("vote of 3", vote, results), way("chain of 3", chain, results)]
    arms = [entry.final for entry in entries.values()]
    return Study(ways, contrasts(planned, arms), *_size(one, results))


def optimizers_of(folder: Path = OPTIMIZERS) -> Optimizers:
    """GEPA and MIPROv2 on chains of 1 and 3."""
    results = load([folder])
    entries = {(entry.series.optimizer, entry.steps): entry for entry in entries_of(results)}
    names = {"gepa": "GEPA", "mipro": "MIPROv2"}
    final = {key: entry.final for key, entry in entries.items()}
    planned: dict[str, Weighted] = {
        f"{names[optimizer]} minus baseline, {steps} step{'s' * (steps > 1)}": minus(
            final[optimizer, steps], entries[optimizer, steps].base
        )
        for steps in (1, 3)
        for optimizer in names
    }
    planned["GEPA minus MIPROv2, mean of both lengths"] = [
        (sign / 2, final[optimizer, steps]) for optimizer, sign in (("mipro", -1), ("gepa", 1)) for steps in (1, 3)
    ]
    planned["3 steps minus 1 step, mean of both optimizers"] = [
        (sign / 2, final[optimizer, steps]) for steps, sign in ((1, -1), (3, 1)) for optimizer in names
    ]
    ways = [
        way(f"{steps} step{'s' * (steps > 1)}, {name}", entries[optimizer, steps], results, program)
        for steps in (1, 3)
        for name, optimizer, program in (
            ("baseline", "gepa", "baseline"),
            ("GEPA", "gepa", "final"),
            ("MIPROv2", "mipro", "final"),
        )
    ]
    keys = {name: _keys(entries.values(), optimizer) for optimizer, name in names.items()}
    return Optimizers(
        ways, contrasts(planned, list(final.values())), *_size(entries["gepa", 1], results),
        cells={name: len(mine) for name, mine in keys.items()},
        kept={name: int(results.cells.loc[mine, "unchanged"].sum()) for name, mine in keys.items()},
        tried={name: int(results.cells.loc[mine, "proposals_tried"].sum()) for name, mine in keys.items()},
        accepted={name: int(results.cells.loc[mine, "proposals_accepted"].sum()) for name, mine in keys.items()},
    )  # fmt: skip


def _keys(entries: Iterable[Entry], optimizer: str) -> list[str]:
    """The records of an optimizer."""
    return [key for entry in entries if entry.series.optimizer == optimizer for key in entry.keys]


def _size(entry: Entry, results: Results) -> tuple[int, int, int, float]:
    """Rows and runs of an entry, and the calls of all records with their hours."""
    answered = [call for key in results.data for call in results.calls(key)]
    hours = sum(call.latency_seconds or 0.0 for call in answered) / 3600
    return len(entry.final.items), entry.final.runs, len(answered), hours


def page() -> str:
    """The text of docs/findings.md."""
    environment = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined, keep_trailing_newline=True)
    template = environment.get_template("findings.md.jinja")
    return template.render(votes=votes_of(), optimizers=optimizers_of())


def main() -> None:
    """Write the page, and its figure as the analysis draws it."""
    PAGE.write_text(page(), encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        analyze([VOTES], Path(folder), ["png"])
        shutil.copy(Path(folder) / "visualizations" / "scaling_curve_banking77.png", FIGURE)
    print(f"wrote {PAGE.relative_to(HERE.parent)} and {FIGURE.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
