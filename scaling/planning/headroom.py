"""The pilot of headroom: which cells it has, and where its rows come from. It has no optimizer and no test row."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from scaling.planning.optimizers import NONE
from scaling.planning.study import Study, phases_of
from scaling.sequential import FIXED
from scaling.types import Splits
from scaling.wordings import OWN, WORDINGS

ROWS = 60
STEPS = (1, 3, 5)
VOTES = 5
DRAWS = 2  # of the chains, which tells how much the answers to one row vary


def headroom_of(study: Study) -> Study:
    """The study's pilot of headroom: unoptimized chains, a vote, and one step in other wordings, one run each.

    It has a phase for each of them, and these for each phase of the study that is asked for.
    """
    names = {field.name for field in fields(Study)} - {"phases", "phase"}
    phases: dict[str, dict[str, Any]] = {}
    for number, part in enumerate(phases_of(study)):
        own = {name: getattr(part, name) for name in names if getattr(part, name) != getattr(study, name)}
        phases |= {f"{kind} {number}": own | _plain(part) | axes for kind, axes in _kinds(part).items()}
    whole: dict[str, Any] = {"questions": [], "compares_mipro": False, "design": FIXED, "gate": False}
    return replace(study, name=f"{study.name}-headroom", phases=phases, phase="all", **whole)


def headroom_rows(splits: Splits) -> Splits:
    """The same splits with up to `ROWS` rows of train and check in the place of test, half of each where they last.

    Where the final score of a study is on check rows, they are its test rows, and all come from train.
    """
    check = splits.check if splits.split == "test" else []
    of_check = min(len(check), max(ROWS // 2, ROWS - len(splits.train)))
    rows = splits.train[: ROWS - of_check] + check[:of_check]
    return replace(splits, check=[], test=rows, split="train and check" if check else "train")


def _plain(part: Study) -> dict[str, Any]:
    """What all cells of the pilot have in common, whatever the study sets."""
    by_optimizer = [name for models in part.models_by_optimizer.values() for name in models]
    return {
        "optimizers": [NONE.name], "optimizer_options": {}, "stop_when_flat": None, "feedback": "none",
        "models": list(dict.fromkeys([*part.models, *by_optimizer])), "models_by_optimizer": {},
        "steps_by_benchmark": {}, "draws": 1, "draws_by_benchmark": {}, "run_list": (part.run_list or [0])[:1],
        "pilot": True, "headroom": True,
        "start_from": None, "frozen_roles": (),
    }  # fmt: skip


def _kinds(part: Study) -> dict[str, dict[str, Any]]:
    """Kind of cell -> its axes. At temperature 0 a vote would ask for the same answer again."""
    can_draw = part.temperature > 0
    kinds: dict[str, dict[str, Any]] = {
        "calls": {"pipelines": ["chain"], "steps": list(STEPS), "draws": DRAWS if can_draw else 1}
    }
    if can_draw:
        kinds["votes"] = {"pipelines": ["vote"], "steps": [VOTES]}
    one_step = {"pipelines": ["chain"], "steps": [1]}
    return kinds | {f"wording {name}": one_step | {"wording": name} for name in WORDINGS if name != OWN}
