"""The table of targets, which is the one place that names them.

Their functions are named as text and loaded when they are used, as the packages that some of them need are optional.
"""

from __future__ import annotations

import importlib.util
import pkgutil
from dataclasses import dataclass
from pathlib import Path

from scaling.export.cells import Sweep
from scaling.export.tracked import Tracker, tracked
from scaling.types import UsageError


@dataclass(frozen=True)
class Target:
    """A format or a program that takes records.

    function: as 'module:function'. Of a file format it writes a `Sweep` into a folder and says what it wrote. Of a
    tracker it makes the `Tracker` of a sweep, from its name and a folder (None for the tracker's own choice).
    needs: the package that has to be installed, which the extra of the same name brings.
    """

    name: str
    what: str
    function: str
    is_tracker: bool = False
    needs: str | None = None


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("every-eval-ever", "JSON of schema 0.3, with instances", "scaling.export.every_eval_ever:write"),
        Target("parquet", "one row a prediction, with a data dictionary", "scaling.export.parquet:write"),
        Target("inspect", "logs for inspect view", "scaling.export.inspect_log:write", needs="inspect_ai"),
        Target("mlflow", "runs in MLflow", "scaling.export.mlflow_runs:open_tracker", is_tracker=True, needs="mlflow"),
        Target(
            "wandb", "runs in Weights & Biases", "scaling.export.wandb_runs:open_tracker", is_tracker=True,
            needs="wandb",
        ),
    )
}  # fmt: skip


def tracker_names() -> list[str]:
    """The targets that can follow a sweep while it runs."""
    return [target.name for target in TARGETS.values() if target.is_tracker]


def check_installed(target: Target, flag: str) -> None:
    """Raise UsageError, naming the flag, where the package of a target is not installed."""
    if target.needs and importlib.util.find_spec(target.needs) is None:
        extra = f"pip install 'call-scaling[{target.name}]'"
        raise UsageError(f"{flag} {target.name} needs {target.needs}, which is not installed. Type: {extra}")


def open_tracker(target: Target, sweep: str, folder: Path | None) -> Tracker:
    """The tracker of a sweep. May raise or hang, as trackers do."""
    tracker: Tracker = pkgutil.resolve_name(target.function)(sweep, folder)
    return tracker


def export(target: Target, sweep: Sweep, out: Path | None) -> str:
    """Give the sweep to the target; returns one line that says what was done. Raises UsageError.

    out: a folder. Only a tracker can do without one.
    """
    if not target.is_tracker:
        said: str = pkgutil.resolve_name(target.function)(sweep, out)
        return said
    tracker = open_tracker(target, sweep.name, out)
    count = 0
    for cell in sweep.cells:
        tracker.log(tracked(cell))
        count += 1
    tracker.close()
    return f"{target.name} has the {count:,} cells of {sweep.name}" + (f" in {out}" if out else "")
