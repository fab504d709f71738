"""What is submitted as a hosted job: our prompts as its baseline, the seeds of its rows, its budget, its models."""

from __future__ import annotations

from scaling.hosted.client import provider_of
from scaling.hosted.prompts import Json, Stage, initial_prompt
from scaling.models import Model
from scaling.planning.budgets import plan_mipro
from scaling.planning.optimizer_options import MiproInstructOptions
from scaling.run.context import OptimizerContext
from scaling.types import HostedSettings

INSTRUCTIONS_A_BATCH = 4


def job_body(
    context: OptimizerContext, settings: HostedSettings, stages: list[Stage], url: str, max_cost_usd: float | None,
    job_name: str,
) -> Json:  # fmt: skip
    """The body of a submission. url: of the task app; max_cost_usd None: no limit; job_name: finds the job again."""
    trials, *_ = plan_mipro(context.budget, len(context.select), len(context.train), MiproInstructOptions())
    limits = {"max_rollouts": context.budget, "max_trials": trials, "max_seconds": int(settings.job_timeout)}
    cell, name = context.cell, task_name(context)
    learning = {
        "algorithm": "mipro",
        "task_app_url": url,
        "task_app_id": name.replace("_", "-"),
        "env_name": name,
        # The name stands where a backend keeps the configuration, and where it keeps what else was sent.
        "initial_prompt": initial_prompt(name, stages) | {"id": job_name},
        "policy": {
            "model": name_of(context.model),
            "provider": provider_of(context.model),
            "inference_mode": "synth_hosted",
            "temperature": cell.temperature,
            "max_completion_tokens": cell.max_output_tokens,
            "policy_name": name,
            "config": {},
        },
        "env_config": {"split": "train"},
        "termination_config": limits | ({"max_cost_usd": max_cost_usd} if max_cost_usd is not None else {}),
        "mipro": _mipro(context, stages, trials),
    }
    return {
        "algorithm": "mipro",
        "config_body": {"prompt_learning": learning},
        "overrides": {},
        "metadata": {"backend_base_url": f"{settings.backend}/api", "client_job_name": job_name},
        "auto_start": True,
    }


def _mipro(context: OptimizerContext, stages: list[Stage], trials: int) -> Json:
    """The optimizer's own settings: a seed is a row's place, first those of train and then those of select."""
    cell, train, select = context.cell, len(context.train), len(context.select)
    bootstrap = max(1, min(train, context.budget - (trials + 1) * select))
    val = list(range(train, train + select))[: cell.synth_rollouts]
    iterations = max(1, trials // INSTRUCTIONS_A_BATCH)
    return {
        "mode": cell.synth_mode,
        "env_name": task_name(context),
        "bootstrap_train_seeds": list(range(bootstrap)),
        "online_pool": list(range(train)),
        "val_seeds": val,
        "proposer": {
            "model": name_of(context.optimizer_lm.spec),
            "provider": provider_of(context.optimizer_lm.spec),
            "mode": "instruction_only",
            "temperature": context.optimizer_lm.kwargs["temperature"],
            "max_tokens": context.optimizer_lm.spec.optimizer_output_limit,
            "generate_at_iterations": list(range(iterations)),
            "instructions_per_batch": INSTRUCTIONS_A_BATCH,
        },
        "num_iterations": iterations,
        "num_evaluations_per_iteration": INSTRUCTIONS_A_BATCH,
        "batch_size": len(val),
        "max_concurrent": context.threads,
        "max_demo_set_size": 0,
        "modules": [{"module_id": s.name, "max_instruction_slots": 1, "max_demo_slots": 0} for s in stages],
        "online_proposer_mode": "inline",
        "online_rollouts_per_candidate": cell.synth_rollouts or min(10, select),
        "online_proposer_min_rollouts": min(20, context.budget // 2),
    }


def task_name(context: OptimizerContext) -> str:
    """The task as the service and the task app call it."""
    return f"{context.cell.benchmark.replace('/', '-')}_{context.cell.steps}step"


def name_of(model: Model) -> str:
    """The model as its provider knows it."""
    return model.route.partition("/")[2]
