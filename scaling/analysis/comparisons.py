"""Which cells may be compared, and the tables that compare them; what is refused is named with its field."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scaling.analysis.hypotheses import TEST_COLUMNS, Grid, Key, judge
from scaling.analysis.results import OF_HOSTED_JOBS, SHARED, SHARED_IN_BENCHMARK, Results, name_of, series_cells
from scaling.analysis.stats import Arm, Estimate, RunVariance, difference, direction, holm, run_variances, settling_size
from scaling.optimizers import is_hosted

SMALLEST_OF_INTEREST = 0.05  # of a single comparison, for the rows and runs that would settle it


@dataclass(frozen=True)
class Entry:
    """One series at one number of steps: its fields, its records' keys, and the arms of its programs."""

    fields: dict
    steps: int
    keys: list[str]
    final: Arm
    base: Arm
    size: tuple[float | None, str]  # the model's parameters in billions, and published, assumed or unknown

    @property
    def name(self) -> str:
        return f"{self.fields['benchmark']} {self.steps} {self.fields['pipeline']} {self.fields['optimizer']}"


def entries_of(results: Results) -> list[Entry]:
    """Every series at every number of steps that has scored answers."""
    found = []
    for series, by_steps in series_cells(results).items():
        for steps, keys in by_steps.items():
            final, base = results.arm(keys), results.arm(keys, "baseline")
            if final is not None and base is not None:
                both = final.items[np.isin(final.items, base.items)]  # a lost call takes the row from both
                if not len(both):
                    continue
                base = Arm(base.benchmark, "none", base.items, base.groups, base.scores).at(both)
                final = final.at(both)
                row = results.cells.loc[keys[0]]
                size = None if pd.isna(row["parameters_billions"]) else float(row["parameters_billions"])
                found.append(Entry(name_of(series), steps, keys, final, base, (size, str(row["parameters_status"]))))
    return found


def tests_frame(results: Results, entries: list[Entry]) -> tuple[pd.DataFrame, list[str]]:
    """summary_tests.csv: H1 to H4, then each exploratory table as a Holm family; and what was refused."""
    cells, notes = grid(results, entries)
    between = run_variances([entry.final for entry in entries])
    rows = judge(cells)
    for family, pairs in FAMILIES.items():
        rows += _family(family, list(pairs(entries)), between)
    return pd.DataFrame(rows, columns=TEST_COLUMNS), notes


def grid(results: Results, entries: list[Entry]) -> tuple[Grid, list[str]]:
    """The largest set of chain cells on equal terms, and sentences on what is left out and by which field.

    All benchmarks must share model, proposer, budget and the like; the cells of one benchmark its rows too.
    """
    chain = [entry for entry in entries if entry.fields["pipeline"] == "chain"]
    if not chain:
        return Grid({}, {}), ["no cell of the pipeline chain has a score"]
    chain, notes = _largest(chain, SHARED, "")
    kept = []
    for benchmark in sorted({entry.fields["benchmark"] for entry in chain}):
        mine = [entry for entry in chain if entry.fields["benchmark"] == benchmark]
        mine, refused = _largest(mine, SHARED_IN_BENCHMARK, f" of {benchmark}")
        notes += refused
        kept += mine
    ok = results.cells
    return Grid(
        arms=_by_key(kept, lambda entry: entry.final),
        task_class={entry.fields["benchmark"]: ok.loc[entry.keys[0], "task_class"] for entry in kept},
        vote=_by_key(_on_terms_of(kept, entries, "vote"), lambda entry: entry.final),
        early=_by_key(kept, lambda entry: results.arm(entry.keys, "at_equal_calls")),
        exact=_by_key(kept, lambda entry: results.arm(entry.keys, metric="exact_match")),
        flagged=frozenset(_key(entry) for entry in kept if ok.loc[entry.keys, "flagged"].any()),
    ), notes + _flagged(results)


def improvements(entries: list[Entry]) -> Iterator[tuple[str, Arm, Arm]]:
    """Final against its own baseline; a program equal to its baseline is no test."""
    for entry in entries:
        if (
            entry.fields["optimizer"] != "none"
            and (entry.final.scores != entry.base.at(entry.final.items).scores).any()
        ):
            yield f"{entry.name}: final - baseline", entry.base, entry.final


def step_changes(entries: list[Entry]) -> Iterator[tuple[str, Arm, Arm]]:
    """k steps against one step of the same series."""
    by_series: dict[str, dict[int, Entry]] = {}
    for entry in entries:
        by_series.setdefault(str(entry.fields), {})[entry.steps] = entry
    for by_steps in by_series.values():
        for steps in sorted(set(by_steps) - {1}):
            if 1 in by_steps:
                yield f"{by_steps[steps].name} - 1 step", by_steps[1].final, by_steps[steps].final


def optimizer_pairs(entries: list[Entry]) -> Iterator[tuple[str, Arm, Arm]]:
    """GEPA against each other optimizer on equal terms."""
    yield from _pairs(entries, "optimizer", "gepa")


def control_pairs(entries: list[Entry]) -> Iterator[tuple[str, Arm, Arm]]:
    """The chain against vote and repeat at the same number of calls."""
    yield from _pairs(entries, "pipeline", "chain")


def mipro_pairs(entries: list[Entry]) -> Iterator[tuple[str, Arm, Arm]]:
    """Hosted MIPRO against MIPROv2 without and with demos, and these two; only where a hosted one ran."""
    for hosted in (entry for entry in entries if is_hosted(entry.fields["optimizer"])):
        same = {e.fields["optimizer"]: e for e in entries if _terms(e) == _terms(hosted)}
        for first, second in ((hosted, same.get("mipro_instruct")), (hosted, same.get("mipro"))):
            if second is not None:
                yield (
                    f"{first.name} {first.fields['synth_mode']} - {second.fields['optimizer']}",
                    second.final,
                    first.final,
                )
    local = {(e.fields["optimizer"], _terms(e)): e for e in entries}
    for terms in {_terms(entry): None for entry in entries if is_hosted(entry.fields["optimizer"])}:
        if (plain := local.get(("mipro_instruct", terms))) and (demos := local.get(("mipro", terms))):
            yield f"{demos.name} - mipro_instruct", plain.final, demos.final


def mipro_tests(entries: list[Entry]) -> list[dict]:
    """The rows of summary_tests.csv about MIPRO implementations."""
    between = run_variances([entry.final for entry in entries])
    return _family(MIPRO, list(mipro_pairs(entries)), between)


MIPRO = "MIPRO implementations (exploratory)"
FAMILIES: dict[str, Callable[[list[Entry]], Iterator[tuple[str, Arm, Arm]]]] = {
    "improvement by optimization (exploratory)": improvements,
    "more steps against one (exploratory)": step_changes,
    "optimizers at equal budgets (exploratory)": optimizer_pairs,
    "chain against its controls (exploratory)": control_pairs,
    MIPRO: mipro_pairs,
}


def _pairs(entries: list[Entry], field: str, first: str) -> Iterator[tuple[str, Arm, Arm]]:
    """Entries that share every field but one with an entry whose `field` is `first`, at the same steps."""

    def rest(entry: Entry) -> tuple:
        return _terms(entry, (field, *OF_HOSTED_JOBS))

    chosen = {rest(entry): entry for entry in entries if entry.fields[field] == first}
    for other in entries:
        mine = chosen.get(rest(other))
        if mine is not None and other.fields[field] not in (first, "none"):
            yield f"{mine.name} - {other.fields[field]}", other.final, mine.final


def _terms(entry: Entry, but: tuple[str, ...] = ("optimizer", *OF_HOSTED_JOBS)) -> tuple:
    """What an entry must share with another to be compared with it: the steps, and all fields but some."""
    return (entry.steps, *((name, str(value)) for name, value in entry.fields.items() if name not in but))


def _family(family: str, pairs: list[tuple[str, Arm, Arm]], between: dict[str, RunVariance]) -> list[dict]:
    found = [(name, difference(first, second, between)) for name, first, second in pairs]
    adjusted = holm([one.p for _, one in found])
    about_optimizers = family.startswith("optimizers") or family == MIPRO
    return [_row(family, name, one, p, about_optimizers) for (name, one), p in zip(found, adjusted, strict=True)]


def _row(family: str, name: str, one: Estimate, p_holm: float, about_optimizers: bool) -> dict:
    said, reason = direction(one, p_holm), ""
    if about_optimizers and one.runs < 2:
        said, reason = "cannot tell", "one run gives no verdict on optimizers"
    return dict.fromkeys(TEST_COLUMNS) | {
        "family": family, "question": "", "comparison": name, "effect": one.effect, "ci_low": one.low,
        "ci_high": one.high, "p": one.p, "p_holm": p_holm, "verdict": said, "level": one.level, "n": one.n,
        "runs": one.runs, "reason": reason, "detectable": one.detectable,
        "to_settle": settling_size(one, SMALLEST_OF_INTEREST),
    }  # fmt: skip


def _key(entry: Entry) -> Key:
    return entry.fields["benchmark"], entry.fields["optimizer"], entry.steps


def _by_key(entries: list[Entry], arm_of: Callable[[Entry], Arm | None]) -> dict[Key, Arm]:
    found = {_key(entry): arm_of(entry) for entry in entries}
    return {key: arm for key, arm in found.items() if arm is not None}


def _on_terms_of(kept: list[Entry], entries: list[Entry], pipeline: str) -> list[Entry]:
    """Entries of another pipeline on the terms of those that are compared."""
    terms = {(e.fields["benchmark"], *(str(e.fields[f]) for f in SHARED + SHARED_IN_BENCHMARK)) for e in kept}
    return [
        e for e in entries
        if e.fields["pipeline"] == pipeline
        and (e.fields["benchmark"], *(str(e.fields[f]) for f in SHARED + SHARED_IN_BENCHMARK)) in terms
    ]  # fmt: skip


def _largest(entries: list[Entry], terms: list[str], where: str) -> tuple[list[Entry], list[str]]:
    """The entries that share the commonest values of `terms`, and a sentence for each other set."""
    by_terms: dict[tuple, list[Entry]] = {}
    for entry in entries:
        by_terms.setdefault(tuple(str(entry.fields[f]) for f in terms), []).append(entry)
    chosen = max(by_terms, key=lambda values: len(by_terms[values]))
    refused = []
    for values, others in by_terms.items():
        if values != chosen:
            pairs = zip(terms, values, chosen, strict=True)
            differing = [f"{f} {a[:40]} against {b[:40]}" for f, a, b in pairs if a != b]
            cells = "1 cell" if len(others) == 1 else f"{len(others)} cells"
            refused.append(f"{cells}{where} with the others: {', '.join(differing)}")
    return by_terms[chosen], refused


def _flagged(results: Results) -> list[str]:
    """Cells whose rollouts are too far from their budget for the comparison of optimizers."""
    cells = results.cells[results.cells["flagged"].astype(bool) & (results.cells["status"] == "ok")]
    return [
        f"{results.name(key)} in H3: it used {100 * row['used_share']:.0f} % of its rollouts"
        for key, row in cells.iterrows()
    ]
