"""What the command says of a sequential study: its rule and its calls before it runs, and what each look decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from scaling.command.expected_calls import Expected
from scaling.command.prepare import Sweep
from scaling.command.waves import Decided, changed_since, without_score
from scaling.records.looks import GateDecision
from scaling.records.savings import Saved, saved
from scaling.records.store import PLAN, read_plan
from scaling.run.calls_ahead import CallsAhead, calls_of
from scaling.run.estimate import Estimate
from scaling.run.progress import ProgressReporter
from scaling.run.task import CellTask
from scaling.sequential import DECIDED, FUTILE, Look, QuestionLook, SequentialDesign, runs_text

HYPOTHESES = 4  # that share the error rate
GIVES_UP = "It gives up a rise from 1 to 3 steps that falls again until 5: H2 then reads 'cannot tell'"


def design_lines(sweep: Sweep, ahead: CallsAhead | None, results: Path) -> list[str]:
    """A sequential study's rule, what it has decided, and the calls that it has before it; [] for a fixed study."""
    decided = sweep.decided
    if decided is None:
        return []
    lines = ["design: sequential, in plan.json before the first call. It cannot be changed in this folder"]
    lines += [f"- {line}" for line in rule_lines(decided.plan.design)]
    lines += gate_lines(decided.gate) if decided.gate else []
    lines += [line for decision in decided.looks for line in look_lines(decision.look, decided.plan.design)]
    if changed := changed_since(decided, sweep.tasks):
        lines.append(f"note: cells whose scores have changed since a look judged them: {len(changed)}. The look stands")
    failed = without_score(decided, sweep.settled)
    lines += [blocked_line(failed)] if failed else []
    lines += [ahead.text] if ahead and sweep.waiting else []
    return lines + ([saved_line(saved_by(decided, sweep.tasks, results))] if decided.standing.is_ended else [])


def teller(
    sweep: Sweep, estimates: Mapping[str, Estimate], reporter: ProgressReporter, results: Path
) -> Callable[[Decided], None]:
    """A function that says what was decided, and what that leaves to run."""

    def tell(decided: Decided) -> None:
        for line in decision_lines(decided):
            reporter.say(line)
        if decided.standing.is_ended:
            reporter.say(saved_line(saved_by(decided, sweep.tasks, results)))
        unscored = [task for task in sweep.waiting if task.files.read_record() is None]
        reporter.leave_out(task.cell for task in unscored if not decided.standing.may_run(task.cell))
        reporter.look_ahead(calls_ahead(decided, unscored, estimates, Expected()))

    return tell


def calls_ahead(
    decided: Decided, waiting: Sequence[CellTask], estimates: Mapping[str, Estimate], expected: Expected
) -> CallsAhead:
    """The calls of the cells that wait: in the next wave, if everything stays open, and as they are expected."""
    cells = [task.cell for task in waiting if decided.standing.may_run(task.cell)]
    now = {cell.cell_id: 1.0 for cell in cells if decided.standing.needs_now(cell)}
    chances = {cell.cell_id: expected.chances[cell.cell_id] for cell in cells} if expected.chances else {}
    return CallsAhead(
        now=calls_of(now, estimates),
        all_open=calls_of({cell.cell_id: 1.0 for cell in cells}, estimates),
        expected=calls_of(chances, estimates) if chances else None,
        guess=expected.guess,
    )


def rule_lines(design: SequentialDesign) -> list[str]:
    """The rule by which a study looks and decides."""
    from scaling.spending import levels_of  # scipy starts slowly

    last = len(design.waves)
    first, *_, final = (_p(2 * level) for level in levels_of(design, HYPOTHESES))
    lines = [
        f"looks: H1 to H4 are judged after {runs_text(design.waves)} runs and only then. What is decided or given up "
        f"gets no more cells",
        f"boundaries: {_percent(design.alpha)} is spent as O'Brien and Fleming do (Lan and DeMets), inside Holm's "
        f"procedure. The smallest p of four decides at {first} or less at look 1, at {final} or less at look {last}",
        f"given up: a question whose chance of a verdict by look {last} is below {_percent(design.futility)}",
    ]
    if design.gate is not None:
        lines.append(f"gate: chains of 3 steps run where z of 5 minus 1 step is above {design.gate:g}. {GIVES_UP}")
    return lines


def decision_lines(decided: Decided) -> list[str]:
    """What the study decided last."""
    if decided.looks:
        return look_lines(decided.looks[-1].look, decided.plan.design)
    return gate_lines(decided.gate) if decided.gate else []


def gate_lines(gate: GateDecision) -> list[str]:
    """Whether the chains of 3 steps run, model by model."""
    named = len(gate.z) > 1
    lines = []
    for model, z in gate.z.items():
        outcome = "open: chains of 3 steps run" if model in gate.opened else f"closed: no chains of 3 steps. {GIVES_UP}"
        lines.append(f"gate{f' ({model})' if named else ''}: z of 5 minus 1 step is {z:.2f}, {outcome}")
    return lines or ["gate: closed, since 5 steps could not be compared with 1 step"]


def look_lines(look: Look, design: SequentialDesign) -> list[str]:
    """What a look decided."""
    several = len({question.model for question in look.questions}) > 1
    head = f"look {look.number} of {len(design.waves)}, after {look.runs} runs:"
    return [head, *(f"- {_question_text(question, several)}" for question in look.questions)]


def saved_line(saved: Saved) -> str:
    """What the study did not have to run."""
    if not saved.cells:
        return "calls saved: none, since every cell of the fixed design was needed"
    usd = "" if saved.work.usd is None else f" (${saved.work.usd:,.2f})"
    return (
        f"calls saved: about {saved.work.calls:,.0f}{usd} in {saved.cells} cells, {_percent(saved.share)} of what the "
        f"fixed design makes. They would pay for {saved.more_runs:.1f} more runs of all cells"
    )


def saved_by(decided: Decided, tasks: Sequence[CellTask], results: Path) -> Saved:
    """What the study has saved so far, against all cells of the fixed design."""
    records = {task.cell.cell_id: task.files.read_record() for task in tasks}
    left_out = [t.cell for t in tasks if records[t.cell.cell_id] is None and not decided.standing.may_run(t.cell)]
    return saved(left_out, [record for record in records.values() if record], read_plan(results / PLAN).cells)


def blocked_line(failed: Sequence[CellTask]) -> str:
    """Why the next look cannot be made."""
    more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    return f"the next look waits for a score of {failed[0].cell.label}{more}. Type --retry-failed to run them again"


def _question_text(question: QuestionLook, several_models: bool) -> str:
    name = f"{question.question} ({question.model})" if several_models else question.question
    seen = [] if question.effect is None else [f"{100 * question.effect:+.1f} points"]
    chance = [] if question.chance is None else [f"{_percent(question.chance)} chance of a verdict"]
    if question.outcome == DECIDED:
        return f"{name}: {question.verdict} at look {question.look} ({', '.join([*seen, _decisive(question)])})"
    if question.effect is None and question.reason:
        return f"{name}: {question.reason}"
    reason = [question.reason] if question.reason else []
    word = "given up" if question.outcome == FUTILE else "open"
    return f"{name}: {word} ({', '.join([*seen, *chance, *reason])})"


def _decisive(question: QuestionLook) -> str:
    """The p that decided, and its boundary."""
    if question.no_effect_rejected:
        return f"p {_p(question.p)}, and {_p(question.boundary)} or less decides"
    return (
        f"p of an effect of interest {_p(question.exclusion_p)}, and {_p(question.exclusion_boundary)} or less decides"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _p(p: float) -> str:
    return f"{p:.2g}"
