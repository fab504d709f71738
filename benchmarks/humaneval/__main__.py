"""Run every canonical solution through the sandbox: `python -m benchmarks.humaneval [sample|hub|DIR]`."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.humaneval.data import load
from scaling.sandbox.deno import require
from scaling.sandbox.programs import Verdict, run_checks
from scaling.types import UsageError


def verdict_of(row: dict[str, Any]) -> Verdict:
    """The canonical solution on the problem's own tests."""
    return run_checks(row["code"], row["tests"], row["entry_point"], prelude=f"{row['prompt']}\n    pass\n")


def main(source: str) -> int:
    """Print those that fail and how many pass; 0 when all do, 1 when not, 2 when nothing could be run."""
    try:
        require()
        rows = load(source)["train"]
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as executor:
        verdicts = list(executor.map(verdict_of, rows))
    for row, verdict in zip(rows, verdicts, strict=True):
        if not verdict.passed:
            print(f"{row['id']}: {verdict.kind}: {verdict.detail}")
    passed = sum(verdict.passed for verdict in verdicts)
    print(f"{passed} of {len(rows)} canonical solutions pass")
    return 0 if passed == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "sample"))
