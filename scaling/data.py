"""Rows of a benchmark: loading them through its config, and splitting them into train, select, check and test.

The order of rows is a label-stratified shuffle from a fixed seed (`random.Random` on sorted ids, the
same on every machine). Every prefix of it is stratified, so a larger size holds the smaller one's
rows. Run r > 0 splits the same union of train and val rows anew; test rows never vary.
"""

from __future__ import annotations

import inspect
import random
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, get_args, get_origin

from scaling.types import Benchmark, Row, Splits, UsageError

REQUIRED_KEYS = ("signature", "loader", "metric", "train_seeds", "val_seeds")
OPTIONAL_KEYS = (
    "test_seeds", "feedback", "roles", "version", "labels",
    "label_field", "tools", "needs", "stratify", "match_fields", "near_copy", "mask_digits", "extra_metrics",
    "task_class", "note", "execution_feedback", "failure_kind", "licence",
)  # fmt: skip


def load_benchmark(
    name: str, config: dict[str, Any], source: str, labels: int | None = None, closed_book: bool = False
) -> Benchmark:
    """Check a BENCHMARK_CONFIG entry, load its rows and tools, and narrow its signature to the labels in the rows.

    closed_book: a benchmark with tools is asked without them. Raises UsageError for a config that lacks a key, has
    an unknown one, whose rows lack a field, or whose tools lack what they need.
    """
    check_config(name, config)
    if closed_book and "tools" not in config:
        raise UsageError(f"--closed-book: '{name}' has no tools. Leave --closed-book out for it.")
    loaded = _call_loader(name, config["loader"], source)
    signature, label_field = config["signature"], config.get("label_field") or _literal_field(config["signature"])
    train = _normalise(name, loaded["train"], signature, "train")
    test = _normalise(name, loaded["test"], signature, "test") if loaded.get("test") else None
    if label_field:
        for row in train + (test or []):
            row[label_field] = _clean_label(name, row, label_field)
    labels = labels if labels is not None else config.get("labels")
    if labels is not None:
        train, test = _keep_labels(name, label_field, labels, train, test)
    if label_field:
        present = sorted({row[label_field] for row in train + (test or [])})
        signature = signature.with_updated_fields(label_field, type_=Literal[tuple(present)])
    return Benchmark(
        name=name,
        signature=signature,
        metric=config["metric"],
        feedback=config.get("feedback"),
        roles=config.get("roles") or {},
        version=str(config.get("version", "1")),
        label_field=label_field,
        train=train,
        test=test,
        train_seeds=tuple(config["train_seeds"]),
        val_seeds=tuple(config["val_seeds"]),
        test_seeds=None if config.get("test_seeds") is None else tuple(config["test_seeds"]),
        source=loaded.get("source") or source,
        revision=loaded.get("revision"),
        note=loaded.get("note") or config.get("note"),
        tools=() if closed_book or "tools" not in config else tuple(config["tools"](source)),
        match_fields=tuple(config.get("match_fields") or ()),
        mask_digits=bool(config.get("mask_digits")),
        extra_metrics=config.get("extra_metrics") or {},
        task_class=config.get("task_class"),
        stratify=config.get("stratify"),
        near_copy=config.get("near_copy"),
        failure_kind=config.get("failure_kind"),
        execution_feedback=config.get("execution_feedback"),
        needs=config.get("needs"),
    )


def check_config(name: str, config: dict[str, Any]) -> None:
    """Raise UsageError unless the entry has the five required keys and no misspelt one."""
    missing = [key for key in REQUIRED_KEYS if config.get(key) is None]
    if missing:
        raise UsageError(
            f"BENCHMARK_CONFIG['{name}'] lacks {', '.join(missing)}; "
            f"needed: {', '.join(REQUIRED_KEYS)}. Add {missing[0]}=... to the entry."
        )
    extra = sorted(set(config) - set(REQUIRED_KEYS) - set(OPTIONAL_KEYS))
    if extra:
        raise UsageError(
            f"BENCHMARK_CONFIG['{name}'] has unknown keys {', '.join(extra)}; "
            f"possible: {', '.join(REQUIRED_KEYS + OPTIONAL_KEYS)}. Remove or rename {extra[0]}."
        )
    for key in ("train_seeds", "val_seeds"):
        if not isinstance(config[key], Sequence) or not len(config[key]):
            raise UsageError(f"BENCHMARK_CONFIG['{name}']: {key} holds no row numbers. Give range(50), for example.")
    if set(config["train_seeds"]) & set(config["val_seeds"]):
        raise UsageError(f"BENCHMARK_CONFIG['{name}']: train_seeds and val_seeds overlap. Give each row one use.")


def make_splits(bench: Benchmark, train: int, val: int, select: int, test: int, run: int, seed: int = 0) -> Splits:
    """Splits the rows of one run.

    train, val, select, test are sizes in rows (`select` <= `val`; the rest of val is check). With no
    `test_seeds` in the config, `check` takes the place of test. Raises UsageError when data are short.
    """
    test_rows, train_rows, val_rows, dropped = _rows_of_run_0(bench, train, val, test, seed)
    if len(train_rows) < train or len(val_rows) < val:
        raise _too_few(bench, "train and val together", train + val, len(train_rows) + len(val_rows))
    if run > 0:
        union = stratified(train_rows + val_rows, _stratum(bench), seed + 1000 + run)
        train_rows = union[:train]
        val_rows = _pick(union[train:], val, train_rows)
    val_rows = stratified(val_rows, _stratum(bench), seed + run)
    select_rows = val_rows[:select]
    check_rows = _pick(val_rows[select:], val, select_rows)
    if not test_rows and not check_rows:
        raise UsageError(
            f"{bench.name} has no test rows, and the {val} rows of val leave none for check beside the "
            f"{select} of select. Type --val-size {2 * val}, or give the benchmark test_seeds."
        )
    split = "test" if test_rows else "check"
    return Splits(train_rows, select_rows, check_rows, test_rows or check_rows, split, dropped)


def shrink(bench: Benchmark, train: int, val: int, test: int, seed: int = 0) -> tuple[int, int, int]:
    """Sizes as maxima: the largest (train, val, test) not above the given ones that the splits of `seed` can fill.

    Where the pool is one, test gives way first, down to a third of the rows, then train and val in proportion.
    """
    has_test = bench.test_seeds is not None
    if not has_test:
        test = 0
    elif bench.test is not None:
        test = min(test, len(bench.test))
    else:
        have = len(bench.train)
        test = min(test, max(have // 3, have - train - val))
        if (total := train + val) > have - test:
            train, val = (have - test) * train // total, (have - test) * val // total
    while True:  # copies of test rows and groups on the edge leave rows out: fewer are wanted until they are there
        _, train_rows, val_rows, _ = _rows_of_run_0(bench, train, val, test, seed)
        have = len(train_rows) + len(val_rows)
        if have == train + val:
            return train, val, test
        train, val = have * train // (train + val), have * val // (train + val)


def stratified(rows: list[Row], stratum: str | None, seed: int) -> list[Row]:
    """Rows in a seeded order whose every prefix holds the strata in proportion; groups stay together."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda r: str(r["id"])):
        groups[str(row["group"])].append(row)
    by_stratum: dict[str, list[list[Row]]] = defaultdict(list)
    for name in sorted(groups):
        key = str(groups[name][0].get(stratum)) if stratum else ""
        by_stratum[key].append(groups[name])
    rng = random.Random(seed)
    placed = []
    for key in sorted(by_stratum):
        members = by_stratum[key]
        rng.shuffle(members)
        offset = rng.random()  # so that strata of equal size do not always come in alphabetical order
        placed += [((i + offset) / len(members), key, i, group) for i, group in enumerate(members)]
    placed.sort(key=lambda item: item[:3])
    return [row for *_, group in placed for row in group]


def normalise_text(text: str) -> str:
    """Lower case, composed letters, punctuation and repeated spaces stripped: what counts as the same row.

    STATISTICS 1.9. The same letter can be written composed (NFC) and as a letter with its accent (NFD).
    """
    return " ".join(re.sub(r"[^\w\s]", " ", unicodedata.normalize("NFC", text.lower())).split())


@lru_cache(maxsize=16)
def _rows_of_run_0(
    bench: Benchmark, train: int, val: int, test: int, seed: int
) -> tuple[list[Row], list[Row], list[Row], int]:
    """Rows of test, train and val, and how many were passed over; kept, as all runs begin with them."""
    test_rows = _test_rows(bench, test, seed) if bench.test_seeds is not None else []
    return test_rows, *_train_and_val(bench, test_rows, train, val, seed)


def _train_and_val(
    bench: Benchmark, test_rows: list[Row], train: int, val: int, seed: int
) -> tuple[list[Row], list[Row], int]:
    """Train and val rows of run 0, as many as there are, and how many rows near test rows were passed over.

    One sequence of rows serves both: train's seeds, then rows that no seed names, then val's seeds from the
    last. Train is its front and val its back, so both are nested in their sizes and never meet.
    """
    limit = None  # rows of the pool that are looked at: none beyond the seeds where these are enough
    train_seeds, val_seeds = list(bench.train_seeds), list(bench.val_seeds)
    grouped = any(row["group"] != row["id"] for row in bench.train)
    if not grouped and train <= len(train_seeds) and val <= len(val_seeds):
        limit = max([*train_seeds[:train], *val_seeds[:val]], default=-1) + 1
    pool, dropped = _train_pool(bench, test_rows, limit, seed)
    named = set(train_seeds) | set(val_seeds)
    free = [i for i in range(len(pool)) if i not in named]
    sequence = [pool[i] for i in [*train_seeds, *free, *reversed(val_seeds)] if i < len(pool)]
    train_rows = sequence[:train]
    return train_rows, _pick(sequence[train:][::-1], val, train_rows), dropped


def _pick(rows: list[Row], size: int, taken: list[Row]) -> list[Row]:
    """The first `size` rows whose group has no row in `taken`: a group stays on one side of every split."""
    groups = {row["group"] for row in taken}
    return [row for row in rows if row["group"] not in groups][:size]


def _train_pool(bench: Benchmark, test_rows: list[Row], limit: int | None, seed: int) -> tuple[list[Row], int]:
    """The first `limit` ordered rows that train and val come from, without copies and neighbours of test rows.

    In a single pool test was taken from the front of the order, so this is its reverse. Official test
    rows all count as test here, drawn or not, so that a larger test size changes no train row.
    """
    ordered = stratified(bench.train, _stratum(bench), seed)
    against = bench.test if bench.test is not None and test_rows else test_rows
    if bench.test is None:
        ordered = ordered[::-1]
    if not against:
        return ordered[:limit], 0
    taken_ids = {row["id"] for row in against} if bench.test is None else set()
    shared = {row["group"] for row in [*bench.train, *against] if row["group"] != row["id"]}
    taken_groups = {row["group"] for row in against} & shared
    is_copy = _copy_detector(bench, against)
    kept: list[Row] = []
    dropped = 0
    for row in ordered:
        if len(kept) == limit:
            break
        if row["id"] in taken_ids:
            continue
        if row["group"] in taken_groups or is_copy(row):
            dropped += 1
            continue
        kept.append(row)
    return kept, dropped


def _copy_detector(bench: Benchmark, against: list[Row]) -> Callable[[Row], bool]:
    """A predicate: does this row repeat one of `against`, to the letter or (config `near_copy`) nearly?

    With `mask_digits` in the config, texts that differ in their numbers only are the same.
    """
    fields = bench.match_fields or bench.inputs
    mask = bench.mask_digits

    def text(row: Row) -> str:
        whole = " ".join(str(row[name]) for name in fields)
        return normalise_text(re.sub(r"\d[\d.,]*", "0", whole) if mask else whole)

    exact = {text(row) for row in against}
    limit = bench.near_copy or 0.0
    token_sets = [frozenset(t.split()) for t in exact] if limit else []

    def is_copy(row: Row) -> bool:
        candidate = text(row)
        if candidate in exact:
            return True
        tokens = frozenset(candidate.split())
        return any(
            len(tokens & other) >= limit * len(tokens | other)
            for other in token_sets
            if limit * len(tokens) <= len(other) <= len(tokens) / limit
        )

    return is_copy


def _test_rows(bench: Benchmark, size: int, seed: int) -> list[Row]:
    pool = bench.test if bench.test is not None else bench.train
    ordered = stratified(pool, _stratum(bench), seed)
    seeds = list(bench.test_seeds or ())[:size] or range(size)
    positions = [i for i in seeds if i < len(ordered)]
    if len(positions) < size:
        positions = list(range(min(size, len(ordered))))
    if len(positions) < size:
        raise _too_few(bench, "test", size, len(ordered))
    return [ordered[i] for i in positions]


def _too_few(bench: Benchmark, part: str, wanted: int, have: int) -> UsageError:
    return UsageError(
        f"{bench.name} from '{bench.source}' has {have} rows for {part}, {wanted} were asked for. "
        f"Lower --train-size, --val-size or --test-size."
    )


def _stratum(bench: Benchmark) -> str | None:
    return bench.stratify or bench.label_field


def _literal_field(signature: Any) -> str | None:
    """The output field whose values are a closed set, if the signature declares one."""
    for name, info in signature.output_fields.items():
        if get_origin(info.annotation) is Literal and all(isinstance(a, str) for a in get_args(info.annotation)):
            return str(name)
    return None


def _call_loader(name: str, loader: Any, source: str) -> dict[str, Any]:
    takes_source = "source" in inspect.signature(loader).parameters
    try:
        loaded = loader(source=source) if takes_source else loader()
    except UsageError:
        raise
    except Exception as error:  # a loader is the user's own code: whatever it raises is theirs to fix
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")[:200]
        raise UsageError(f"the loader of '{name}' failed ({reason}). Fix it, or its source '{source}'.") from error
    if not isinstance(loaded, dict):
        return {"train": list(loaded), "test": None}
    if "train" not in loaded:
        raise UsageError(
            f"the loader of '{name}' returned keys {sorted(loaded)}; needed: a list of rows, or train, test."
        )
    return loaded


def _normalise(name: str, rows: Any, signature: Any, part: str) -> list[Row]:
    """Rows as plain dicts with id and group; raise UsageError where a field of the signature is missing."""
    fields = list(signature.input_fields) + list(signature.output_fields)
    normal = []
    for index, raw in enumerate(rows):
        row = dict(raw.items()) if hasattr(raw, "items") else dict(raw)
        missing = [f for f in fields if f not in row]
        if missing:
            raise UsageError(f"row {index} of '{name}' ({part}) lacks {', '.join(missing)}; it has {', '.join(row)}.")
        row["id"] = str(row.get("id", f"{part}-{index:05d}"))
        row["group"] = str(row.get("group", row["id"]))
        normal.append(row)
    if not normal:
        raise UsageError(f"'{name}' has no rows for {part}.")
    if len({row["id"] for row in normal}) != len(normal):
        raise UsageError(f"ids of '{name}' ({part}) are not unique; give each row its own id.")
    return normal


def _clean_label(name: str, row: Row, label_field: str) -> Any:
    """The row's label as a model can give it: no spaces around it, composed letters. UsageError for none."""
    label = row[label_field]
    if isinstance(label, str):
        label = unicodedata.normalize("NFC", label).strip()
    if label is None or label == "" or label != label:  # NaN is not equal to itself
        raise UsageError(
            f"the row '{row['id']}' of '{name}' has no label in '{label_field}'. Leave rows without a label out."
        )
    return label


def _keep_labels(
    name: str, label_field: str | None, labels: int, train: list[Row], test: list[Row] | None
) -> tuple[list[Row], list[Row] | None]:
    """Whole classes only: the first `labels` label names in alphabetical order."""
    if label_field is None:
        raise UsageError(f"--labels: '{name}' has no label set. Leave --labels out for it.")
    present = sorted({row[label_field] for row in train})
    if not 2 <= labels <= len(present):
        raise UsageError(f"--labels {labels}: '{name}' has {len(present)} labels; give 2 to {len(present)}.")
    keep = set(present[:labels])
    train = [row for row in train if row[label_field] in keep]
    return train, [row for row in test if row[label_field] in keep] if test is not None else None
