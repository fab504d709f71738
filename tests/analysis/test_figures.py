"""What a reader sees of the figures: points that coincide, and captions in the words of the tables."""

from __future__ import annotations

from pathlib import Path

import pytest

import analyze_results
from scaling.analysis.figures import pictures_of
from scaling.analysis.findings import Findings
from scaling.analysis.score_figures import cost_quality
from tests.support import damaged
from tests.support.made_up import write_cell


@pytest.fixture
def findings(tmp_path: Path) -> Findings:
    """GEPA's and MIPROv2's programs with one score and one cost."""
    for optimizer in ("gepa", "mipro"):
        write_cell(tmp_path / "results", damaged.made("toy", 1, optimizer, 0), 0.5)
    return analyze_results.find([tmp_path / "results"], None, False)


def test_points_of_two_optimizers_that_coincide_are_both_seen(findings: Findings) -> None:
    (ax,) = cost_quality(findings.summary).axes
    gepa, mipro = (container.lines[0] for container in ax.containers)
    assert gepa.get_xydata().tolist() == mipro.get_xydata().tolist()
    assert gepa.get_markerfacecolor() == mipro.get_markerfacecolor() == "none"
    assert gepa.get_markersize() > mipro.get_markersize()


def test_a_caption_names_an_optimizer_as_the_tables_do(findings: Findings) -> None:
    captions = [picture.caption for picture in pictures_of(findings)]
    assert "Change by MIPROv2 over the same program before optimization" in captions
