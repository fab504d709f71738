"""docs/findings.md from the records that are shipped in this folder: every number on the page comes from here.

`python -m examples.findings` writes the page and its figure; a test holds the page against the records.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analyze_results import analyze
from scaling.analysis.comparisons import Entry, entries_of
from scaling.analysis.loading import load
from scaling.analysis.pairs import difference
from scaling.analysis.results import Results
from scaling.analysis.stats import Arm, Estimate, holm, run_variances, score_interval

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "findings.md"
FIGURE = HERE.parent / "docs" / "calls_or_votes.png"
RECORDS = HERE / "calls-or-votes" / "records"
LEVEL = 0.05  # of the three corrected tests together


@dataclass(frozen=True)
class Way:
    """One way to spend calls: its score in points with a 95 % interval, and what a message costs."""

    name: str
    score: float
    low: float
    high: float
    calls: float
    tokens: float
    seconds: float


@dataclass(frozen=True)
class Contrast:
    """A planned difference in points, its 95 % interval, its corrected p, and what the rule says.

    won, lost: answers, over rows and runs, that only the second program has right, and that only the first has right.
    """

    name: str
    estimate: Estimate
    p_holm: float
    won: int
    lost: int

    @property
    def p_text(self) -> str:
        return f"{self.p_holm:.3f}" if self.p_holm >= 0.001 else "below 0.001"

    @property
    def verdict(self) -> str:
        if self.p_holm >= LEVEL:
            return "cannot tell"
        return "higher" if self.estimate.effect > 0 else "lower"


@dataclass(frozen=True)
class Findings:
    """What the page says."""

    ways: list[Way]
    contrasts: list[Contrast]
    rows: int
    runs: int
    calls: int
    hours: float


def findings_of(folder: Path = RECORDS) -> Findings:
    """The planned contrasts of the study whose records are in the folder."""
    results = load([folder])
    entries = {(entry.series.pipeline, entry.steps): entry for entry in entries_of(results)}
    one, chain, vote = (entries[key] for key in (("chain", 1), ("chain", 3), ("vote", 3)))
    pooled = run_variances([entry.final for entry in entries.values()])
    planned = {
        "chain of 3 minus 1 call": (one, chain),
        "vote of 3 minus 1 call": (one, vote),
        "chain of 3 minus vote of 3": (vote, chain),
    }
    estimates = {name: difference(first.final, second.final, pooled) for name, (first, second) in planned.items()}
    corrected = holm([estimate.p for estimate in estimates.values()])
    names = {"1 call": one, "vote of 3": vote, "chain of 3": chain}
    answered = [call for key in results.data for call in results.calls(key)]
    return Findings(
        ways=[_way(name, entry, results) for name, entry in names.items()],
        contrasts=[
            Contrast(name, estimates[name], p, *_won_and_lost(first.final, second.final))
            for (name, (first, second)), p in zip(planned.items(), corrected, strict=True)
        ],
        rows=len(one.final.items),
        runs=one.final.runs,
        calls=len(answered),
        hours=sum(call.latency_seconds or 0.0 for call in answered) / 3600,
    )


def _won_and_lost(first: Arm, second: Arm) -> tuple[int, int]:
    """Answers that only the second has right, and that only the first has right; both have the same items and runs."""
    return int((second.scores > first.scores).sum()), int((second.scores < first.scores).sum())


def _way(name: str, entry: Entry, results: Results) -> Way:
    """Scores and use of one way; tokens and seconds are means over its answers."""
    arm: Arm = entry.final
    interval = score_interval(arm, run_variances([arm]))
    lines = [line for key in entry.keys for line in results.lines(key) if line.program == "final"]
    mean = {field: sum(getattr(line, field) or 0 for line in lines) / len(lines) for field in USE}
    low, high = interval or (float("nan"), float("nan"))
    return Way(name, float(arm.scores.mean()), low, high, mean["calls"], mean["tokens"], mean["latency_seconds"])


USE = ("calls", "tokens", "latency_seconds")


def page(findings: Mapping[str, Findings]) -> str:
    """The text of docs/findings.md."""
    environment = Environment(loader=FileSystemLoader(HERE), undefined=StrictUndefined, keep_trailing_newline=True)
    return environment.get_template("findings.md.jinja").render(findings)


def main() -> None:
    """Write the page, and its figure as the analysis draws it."""
    PAGE.write_text(page({"votes": findings_of()}), encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        analyze([RECORDS], Path(folder), ["png"])
        shutil.copy(Path(folder) / "visualizations" / "scaling_curve_banking77.png", FIGURE)
    print(f"wrote {PAGE.relative_to(HERE.parent)} and {FIGURE.relative_to(HERE.parent)}")


if __name__ == "__main__":
    main()
