"""A job of the stand-in backend: what was submitted, its candidates with their rewards, and its best prompt."""

from __future__ import annotations

import re
import threading
import time
import uuid
from typing import Any

Json = dict[str, Any]
FORMS = ("messages", "text", "sections", "text_replacements", "pipeline_modules", "results", "state", "best_candidate")
# What may befall on demand.
FAULTS = (
    "401", "no_policy_optimization", "429", "no_key_upload", "no_interceptor_key", "rollouts_fail", "job_fails",
    "repeats_keys", "hanging_submit", "hanging_poll", "never_ends", "no_json", "malformed", "no_prompt",
    "lacks_stage", "lacks_input", "changes_users", "no_list", "hangs_and_never_ends",
)  # fmt: skip


class Job:
    """One job: what was submitted, its candidates with their rewards, and how far it is."""

    def __init__(self, body: Json):
        self.id = f"pl_{uuid.uuid4().hex[:12]}"
        self.system_id = f"sys_{self.id}"
        self.learning = body["config_body"]["prompt_learning"]
        self.mipro, self.metadata = self.learning["mipro"], body["metadata"]
        self.status, self.rollouts = "pending", 0
        self.error: str | None = None
        self.proposals: list[str] = []  # instructions for the last stage
        self.candidates: dict[str, Json] = {}
        self.rewards: dict[str, list[float]] = {}
        self.chosen: dict[str, str] = {}  # online: rollout -> candidate
        self.events: list[Json] = []
        self.cancelled, self.lock = threading.Event(), threading.Lock()

    @property
    def stages(self) -> list[Json]:
        """Name, instruction, system and user pattern of each stage, as they were submitted."""
        prompt = self.learning["initial_prompt"]
        texts = [message["pattern"] for message in sorted(prompt["messages"], key=lambda m: m["order"])]
        modules = prompt["metadata"]["pipeline_modules"]
        return [
            {"name": module["name"], "instruction": module["instruction_text"], "system": system, "user": user}
            for module, system, user in zip(modules, texts[::2], texts[1::2], strict=True)
        ]

    def best(self) -> str | None:
        """The candidate with the highest mean reward."""
        scored = [name for name, rewards in self.rewards.items() if rewards]
        return max(scored, key=lambda name: self.score(name) or 0.0, default=None)

    def score(self, name: str | None) -> float | None:
        """The mean reward of a candidate; None without any."""
        rewards = self.rewards.get(name or "") or []
        return sum(rewards) / len(rewards) if rewards else None

    def texts(self, name: str | None) -> list[str]:
        """The instructions of a candidate, stage by stage: a proposal is for the last one."""
        texts: list[str] = [stage["instruction"] for stage in self.stages]
        if name and name.startswith("cand_"):
            texts[-1] = self.proposals[int(name.removeprefix("cand_"))]
        return texts

    def best_prompt(self, form: str, fault: str | None) -> Any:
        """The best candidate in one of FORMS, as one of FAULTS leaves it."""
        if fault == "malformed":
            return {"messages": [["system", 42]]}
        texts = self.texts(self.best())
        pairs = list(zip(self.stages, texts, strict=True))[: -1 if fault == "lacks_stage" else None]
        if form == "text":
            return texts[-1]
        if form == "text_replacements":
            changes = [{"old_text": s["instruction"], "new_text": t, "apply_to_role": "system"} for s, t in pairs]
            return {"text_replacements": changes}
        if form == "pipeline_modules":
            modules = [{"name": s["name"], "instruction_text": t} for s, t in pairs]
            return {"messages": [], "metadata": {"pipeline_modules": modules}}
        return {"sections" if form == "sections" else "messages": _messages(pairs, form, fault)}

    def add_event(self, kind: str, **data: Any) -> None:
        event = {"seq": len(self.events) + 1, "type": f"learning.policy.mipro.{kind}", "job_id": self.id, "data": data}
        self.events.append(event | {"created_at": time.time(), "message": kind, "level": "info"})


def _messages(pairs: list[tuple[Json, str]], form: str, fault: str | None) -> list[Json]:
    name = "content" if form == "sections" else "pattern"
    messages: list[Json] = []
    for stage, text in pairs:
        user = "Answer now." if fault == "lacks_input" else stage["user"]
        user += " Please." if fault == "changes_users" else ""
        messages.append({"role": "system", name: stage["system"].replace(stage["instruction"], text)})
        messages.append({"role": "user", name: user})
    return [message | {"order": order} for order, message in enumerate(messages)]


def matches(pattern: str, text: str) -> bool:
    """Whether a text is the pattern with its {wildcards} filled."""
    parts = re.split(r"(\{\w+\})", pattern)
    return re.fullmatch("".join(".*" if p.startswith("{") else re.escape(p) for p in parts), text, re.S) is not None
