"""How far a hosted job is and what came of it, from any of the places that backends have for it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from scaling.hosted.client import NotThere, SynthClient
from scaling.hosted.prompts import Json

ENDED_WELL = ("succeeded", "success", "completed", "complete")
ENDED_BADLY = ("failed", "failure", "error", "cancelled", "canceled", "cancel")
SCORES = ("best_score", "best_reward", "best_train_score", "best_train_reward")


@dataclass(frozen=True)
class Outcome:
    """What a job that ended well found: its best prompt in the backend's form, and the backend's own score of it."""

    best_prompt: Any
    best_score: float | None


def outcome_of(client: SynthClient, state: Json, job_id: str) -> Outcome:
    """The best prompt of a job that succeeded, from the first place that has one; None where no place has."""
    prompt, score = state.get("best_prompt") or payload_of(state.get("best_candidate")), score_of(state)
    if not prompt:
        with suppress(NotThere):
            results = client.results(job_id)
            prompt = results.get("best_prompt") or payload_of(results.get("best_candidate"))
            score = score_of(results) if score is None else score
    system_id = (state.get("metadata") or {}).get("mipro_system_id")
    if not prompt and system_id:
        with suppress(NotThere):
            prompt, its_score = best_of_system(client.system(str(system_id)))
            score = its_score if score is None else score
    return Outcome(prompt or None, score)


def best_of_system(state: Json) -> tuple[Any, float | None]:
    """(best candidate's prompt or None, its score or None) of a system's state."""
    candidates = state.get("candidates")
    best = candidates.get(state.get("best_candidate_id")) if isinstance(candidates, dict) else None
    reward = best.get("avg_reward") if isinstance(best, dict) else None
    return payload_of(best) or None, score_of(state | {"best_train_reward": reward})


def payload_of(candidate: Any) -> Any:
    """The part of a candidate that changes the prompt."""
    if not isinstance(candidate, dict):
        return None
    payloads, deltas = candidate.get("stage_payloads"), candidate.get("deltas")
    return {"stage_payloads": payloads} if payloads else {"deltas": deltas} if deltas else candidate.get("best_prompt")


def score_of(state: Json) -> float | None:
    """The score that the backend itself reports, a fraction; None where it reports none."""
    score = next((state[name] for name in SCORES if isinstance(state.get(name), int | float)), None)
    return None if score is None else float(score)


def status_of(state: Json) -> str:
    return str(state.get("status") or "pending").lower()
