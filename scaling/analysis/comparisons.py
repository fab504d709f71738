"""Which cells may be compared, and the tables that compare them; what is refused is named with its field."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from scaling.analysis.hypotheses import Grid, Key
from scaling.analysis.pairs import difference
from scaling.analysis.results import Results, series_cells
from scaling.analysis.series import SERIES, SHARED, SHARED_IN_BENCHMARK, SeriesKey, Terms
from scaling.analysis.stats import Arm, Estimate, RunVariance, contrast, share_rows
from scaling.intervals import mean_interval
from scaling.planning.optimizers import TRANSFER, is_hosted

OF_START = ("optimizer_options", "start", "frozen_roles")  # an optimizer's options, and where it starts


@dataclass(frozen=True)
class Entry:
    """One series at one number of steps: its key, its records' keys, and the arms of its programs.

    final and base are on the same rows: one without a score in either is in neither.
    """

    series: SeriesKey
    steps: int
    keys: list[str]
    final: Arm
    base: Arm
    size: tuple[float | None, str]  # the model's parameters in billions, and published, assumed or unknown
    several_models: bool = False  # then the name tells the model, too
    terms: str = ""  # what tells it from others of its name, as a budget

    @property
    def name(self) -> str:
        return self.name_without_model + (f" {self.series.model}" if self.several_models else "") + self.terms

    @property
    def name_without_model(self) -> str:
        return f"{self.series.benchmark} {self.steps} {self.series.pipeline} {self.series.optimizer}"

    @property
    def is_transfer(self) -> bool:
        """Whether its program was optimized elsewhere; such entries have a table of their own."""
        return self.series.optimizer == TRANSFER.name

    @property
    def changed(self) -> bool:
        """Whether any answer scores differently from the program's before optimization."""
        same_runs = self.final.runs == self.base.runs  # a run's baseline may be lost
        return not same_runs or bool((self.final.scores != self.base.scores).any())


@dataclass(frozen=True)
class Comparison:
    """Mean of the arms `plus` minus mean of the arms `minus`. holm: which of a table's comparisons it is corrected
    with."""

    name: str
    minus: tuple[Arm, ...]
    plus: tuple[Arm, ...]
    holm: str = ""
    note: str = ""

    def estimate(self, pooled: Mapping[str, RunVariance]) -> Estimate:
        if len(self.plus) == len(self.minus) == 1:
            return difference(self.minus[0], self.plus[0], pooled)
        signed = ((self.plus, 1 / len(self.plus)), (self.minus, -1 / len(self.minus)))
        return contrast([(share, arm) for arms, share in signed for arm in arms])


def entries_of(results: Results) -> list[Entry]:
    """Every series at every number of steps that has scored answers, but for transferred programs."""
    return [entry for entry in all_entries(results) if not entry.is_transfer]


def all_entries(results: Results) -> list[Entry]:
    """Every series at every number of steps that has scored answers."""
    entries = []
    cells = series_cells(results)
    several_models = len({series.model for series in cells}) > 1
    for series, by_steps in cells.items():
        for steps, keys in by_steps.items():
            final, base = results.arm(keys), results.arm(keys, "baseline")
            if final is None or base is None:
                continue
            base = Arm(base.benchmark, "none", base.items, base.groups, base.scores, base.unscored)
            (_, final), (_, base) = share_rows([(1.0, final), (1.0, base)])[0]
            if not len(final.items):
                continue
            entries.append(Entry(series, steps, keys, final, base, _model_size(results, keys[0]), several_models))
    return told_apart(entries)


def told_apart(entries: list[Entry]) -> list[Entry]:
    """The entries, those of one name with the fields in which their series differ: ' (rollout_budget 80)'."""
    by_name: dict[str, list[Entry]] = {}
    for entry in entries:
        by_name.setdefault(entry.name, []).append(entry)
    varied = {
        name: [f for f in SERIES if len({getattr(e.series, f) for e in same}) > 1] for name, same in by_name.items()
    }
    named = []
    for entry in entries:
        texts = [f"{field} {_value_text(getattr(entry.series, field))}" for field in varied[entry.name]]
        named.append(replace(entry, terms=f" ({', '.join(texts)})") if texts else entry)
    return named


def _value_text(value: object) -> str:
    """A field's value in a name; of a digest, its first digits."""
    text = str(value)
    return text[:12] if re.fullmatch("[0-9a-f]{64}", text) else text


def _model_size(results: Results, key: str) -> tuple[float | None, str]:
    row = results.cells.loc[key].to_dict()
    billions = row["parameters_billions"]
    return None if pd.isna(billions) else float(billions), str(row["parameters_status"])


def grid_of(results: Results, entries: list[Entry]) -> tuple[Grid, list[str]]:
    """The largest set of one model's chain cells on equal terms, and what is left out and by which field.

    All benchmarks must share proposer, budget and the like; the cells of one benchmark its rows too.
    """
    chain = [entry for entry in entries if entry.series.pipeline == "chain"]
    # Without an optimizer there is nothing to stop, and H1 to H4 are about the others.
    chain = [entry for entry in chain if entry.series.optimizer != "none"] or chain
    chain, notes = _largest(chain, SHARED, "")
    kept = []
    for benchmark in sorted({entry.series.benchmark for entry in chain}):
        mine = [entry for entry in chain if entry.series.benchmark == benchmark]
        mine, refused = _largest(mine, SHARED_IN_BENCHMARK, f" of {benchmark}")
        notes += refused
        for optimizer in sorted({entry.series.optimizer for entry in mine}):
            same = [entry for entry in mine if entry.series.optimizer == optimizer]
            same, refused = _largest(same, OF_START, f" of {benchmark} with {optimizer}")
            notes += refused
            kept += same
    ok = results.cells
    return Grid(
        arms=_by_key(kept, lambda entry: entry.final),
        task_class={entry.series.benchmark: str(ok.loc[entry.keys[0], "task_class"]) for entry in kept},
        vote=_by_key(_on_terms_of(kept, entries, "vote"), lambda entry: entry.final),
        early=_by_key(kept, lambda entry: results.arm(entry.keys, "at_equal_calls")),
        exact=_by_key(kept, lambda entry: results.arm(entry.keys, metric="exact_match")),
        flagged=frozenset(_key(entry) for entry in kept if ok.loc[entry.keys, "flagged"].any()),
        model=chain[0].series.model if chain[0].several_models else "",
    ), notes


def improvements(entries: list[Entry]) -> Iterator[Comparison]:
    """Final against its own baseline; a program equal to its baseline is no test."""
    for entry in entries:
        if entry.series.optimizer != "none" and entry.changed:
            yield Comparison(f"{entry.name}: final - baseline", (entry.base,), (entry.final,))


def average_improvements(entries: list[Entry]) -> Iterator[Comparison]:
    """An optimizer's mean change over its cells, those that it left unchanged included, and how often it hurts."""
    by_optimizer: dict[Terms, list[Entry]] = {}
    for entry in entries:
        if entry.series.optimizer != "none":
            by_optimizer.setdefault(entry.series.across_benchmarks, []).append(entry)
    for alike in by_optimizer.values():
        by_benchmark = itertools.groupby(alike, key=lambda entry: entry.series.benchmark)  # entries are in order
        group = [entry for _, some in by_benchmark for entry in _largest(list(some), SHARED_IN_BENCHMARK, "")[0]]
        if len(group) > 1 and any(entry.changed for entry in group):
            first = group[0]
            model = f" {first.series.model}" if first.several_models else ""
            name = f"{_optimizer_name(first)} {first.series.pipeline}{model}: mean of {len(group)} changes"
            bases, finals = tuple(entry.base for entry in group), tuple(entry.final for entry in group)
            yield Comparison(name, bases, finals, note=hurt_share(group))


def hurt_share(entries: list[Entry]) -> str:
    """In which share of cells (a run each) the final program scores below its baseline, with a 95 % interval.

    The interval is over series, since the runs of one share its rows: Wilson's or t over groups.
    """
    hurt, series = [], []
    for entry in entries:
        base = entry.base.scores if entry.base.runs == entry.final.runs else entry.base.item_means[:, None]
        change = entry.final.scores.mean(axis=0) - base.mean(axis=0)
        hurt += (change < 0).astype(float).tolist()
        series += [entry.name] * len(change)
    interval = mean_interval(hurt, series)
    ends = f" [{100 * interval[0]:.0f}, {100 * interval[1]:.0f}]" if interval else ""
    return f"hurt in {100 * np.mean(hurt):.0f} %{ends} of {len(hurt)} cells"


def step_changes(entries: list[Entry]) -> Iterator[Comparison]:
    """k steps against one step of the same series."""
    by_series: dict[SeriesKey, dict[int, Entry]] = {}
    for entry in entries:
        by_series.setdefault(entry.series, {})[entry.steps] = entry
    for by_steps in by_series.values():
        for steps in sorted(set(by_steps) - {1}):
            if 1 in by_steps:
                yield Comparison(f"{by_steps[steps].name} - 1 step", (by_steps[1].final,), (by_steps[steps].final,))


def optimizer_pairs(entries: list[Entry]) -> Iterator[Comparison]:
    """All pairs of optimizers on equal terms; one family per benchmark and number of steps."""
    by_terms: dict[tuple[int, Terms], list[Entry]] = {}
    for entry in entries:
        if entry.series.optimizer != "none":
            by_terms.setdefault((entry.steps, entry.series.across_optimizers), []).append(entry)
    for same in by_terms.values():
        for first, second in itertools.combinations(sorted(same, key=_optimizer_name), 2):
            family = f"{first.series.benchmark}, {first.steps}"
            name = f"{first.name} - {_optimizer_name(second)}"
            yield Comparison(name, (second.final,), (first.final,), holm=family)


def control_pairs(entries: list[Entry]) -> Iterator[Comparison]:
    """The chain against vote and repeat at the same number of calls."""
    chains = {(entry.steps, entry.series): entry for entry in entries if entry.series.pipeline == "chain"}
    for control in entries:
        chain = chains.get((control.steps, control.series.same_but(pipeline="chain")))
        if chain is not None and control.series.pipeline != "chain":
            name = f"{chain.name} - {control.series.pipeline}"
            yield Comparison(name, (control.final,), (chain.final,))


def mipro_pairs(entries: list[Entry]) -> Iterator[Comparison]:
    """Hosted MIPRO against MIPROv2 without and with demos, and these two; only where a hosted one ran."""
    hosted = [entry for entry in entries if is_hosted(entry.series.optimizer)]
    local = {(e.series.optimizer, e.steps, e.series.across_optimizers): e for e in entries}
    for entry in hosted:
        for optimizer in ("mipro_instruct", "mipro"):
            if other := local.get((optimizer, entry.steps, entry.series.across_optimizers)):
                yield Comparison(f"{entry.name} {entry.series.synth_mode} - {optimizer}", (other.final,),
                                 (entry.final,))  # fmt: skip
    for terms in dict.fromkeys((entry.steps, entry.series.across_optimizers) for entry in hosted):
        plain, demos = local.get(("mipro_instruct", *terms)), local.get(("mipro", *terms))
        if plain and demos:
            yield Comparison(f"{demos.name} - mipro_instruct", (plain.final,), (demos.final,))


def _optimizer_name(entry: Entry) -> str:
    online = " online" if entry.series.synth_mode == "online" else ""
    options = f" ({entry.series.optimizer_options})" if entry.series.optimizer_options else ""
    start = f" {entry.series.start}" if entry.series.start else ""
    frozen = f" frozen {entry.series.frozen_roles}" if entry.series.frozen_roles else ""
    return f"{entry.series.optimizer}{online}{options}{start}{frozen}"


def _key(entry: Entry) -> Key:
    return entry.series.benchmark, entry.series.optimizer, entry.steps


def _by_key(entries: list[Entry], arm_of: Callable[[Entry], Arm | None]) -> dict[Key, Arm]:
    arms = {_key(entry): arm_of(entry) for entry in entries}
    return {key: arm for key, arm in arms.items() if arm is not None}


def _on_terms_of(kept: list[Entry], entries: list[Entry], pipeline: str) -> list[Entry]:
    """Entries of another pipeline on the terms of those that are compared."""

    def terms_of(entry: Entry) -> Terms:
        return entry.series.equal_terms + entry.series.terms("optimizer", *OF_START)

    terms = {terms_of(entry) for entry in kept}
    return [entry for entry in entries if entry.series.pipeline == pipeline and terms_of(entry) in terms]


def _largest(entries: list[Entry], terms: Sequence[str], where: str) -> tuple[list[Entry], list[str]]:
    """The entries that share the commonest values of `terms`, and a sentence for each other set."""
    by_terms: dict[Terms, list[Entry]] = {}
    for entry in entries:
        by_terms.setdefault(entry.series.terms(*terms), []).append(entry)
    chosen = max(by_terms, key=lambda values: len(by_terms[values]))
    refused = []
    for values, others in by_terms.items():
        if values != chosen:
            pairs = zip(terms, values, chosen, strict=True)
            differing = [f"{f} {str(a)[:40]} against {str(b)[:40]}" for f, a, b in pairs if a != b]
            refused.append(f"{_count(others)}{where} with the others: {', '.join(differing)}")
    return by_terms[chosen], refused


def _count(entries: list[Entry]) -> str:
    """How many cells (a run each) and series these are, in words."""
    cells, series = sum(len(entry.keys) for entry in entries), len({entry.series for entry in entries})
    return f"{cells} {'cell' if cells == 1 else 'cells'} ({series} series)"
