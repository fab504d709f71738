"""Weights & Biases: a run a cell, in one group a sweep. It needs wandb.

Where the runs go is wandb's own choice (WANDB_PROJECT, WANDB_MODE, WANDB_API_KEY), or a folder, where they stay offline
until `wandb sync`. A cell has the same run each time.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import wandb

from scaling.export.tracked import TrackedCell

PROJECT = "call-scaling"


class WandbTracker:
    """The runs of one sweep. folder: where they are kept offline; None for wandb's own choice."""

    def __init__(self, sweep: str, folder: Path | None):
        self._sweep, self._folder = sweep, folder
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)

    def log(self, cell: TrackedCell) -> None:
        """One run, whose curve has the optimizer's rollouts as its step."""
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            dir=self._folder,
            mode=None if self._folder is None else "offline",
            id=f"{cell.tags['cell_id']}",
            resume="allow",
            reinit="create_new",
            group=self._sweep,
            job_type="cell",
            name=cell.name,
            config=cell.params | cell.tags,
            settings=wandb.Settings(silent=True, console="off", save_code=False, disable_git=True),
        )
        try:
            for step in cell.curve:
                run.log(step.metrics, step=step.rollouts)
            run.summary.update(cell.metrics)
            _keep_files(run, cell)
        finally:
            run.finish(exit_code=0 if cell.is_ok else 1)

    def close(self) -> None:
        """Nothing is open: each cell has ended its own run."""


def open_tracker(sweep: str, folder: Path | None) -> WandbTracker:
    """The tracker of a sweep by its name."""
    return WandbTracker(sweep, folder)


def _keep_files(run: wandb.Run, cell: TrackedCell) -> None:
    """The program's files as an artifact of the run."""
    if not cell.files:
        return
    artifact = wandb.Artifact(f"program-{cell.tags['cell_id']}", type="program")
    with TemporaryDirectory() as folder:
        for name, text in cell.files.items():
            path = Path(folder, name)
            path.write_text(text, encoding="utf-8")
            artifact.add_file(str(path), name)
        run.log_artifact(artifact)
