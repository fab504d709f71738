"""ToolQA's look-up in a table of four million rows, as its tool makes it: `python -m bench.tables`."""

from __future__ import annotations

import operator
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import duckdb
import pandas

from bench.results import Measure, write_results
from benchmarks.toolqa.tables import open_tables, write_database
from benchmarks.toolqa.tools import look_up

ROWS, REPEATS = 4_000_000, 7
GOAL_MS, GOAL_RATIO = 50.0, 10.0
# Flights as the published table has them: days, airports, airlines, numbers with empty cells, flags.
FLIGHTS = """
SELECT strftime(DATE '2022-01-01' + (i % 212)::INTEGER, '%Y-%m-%d') AS "FlightDate",
       ['Spirit Air Lines', 'Delta Air Lines Inc.', 'Envoy Air', 'SkyWest Airlines Inc.'][1 + i % 4] AS "Airline",
       chr(65 + (i % 20)::INTEGER) || chr(65 + (i * 7 % 20)::INTEGER) || 'X' AS "Origin",
       chr(65 + (i * 3 % 20)::INTEGER) || chr(65 + (i * 11 % 20)::INTEGER) || 'Y' AS "Dest",
       CASE WHEN i % 33 = 0 THEN 'True' ELSE 'False' END AS "Cancelled",
       (i * 37 % 6000)::INTEGER AS "Flight_Number_Marketing_Airline",
       CASE WHEN i % 33 = 0 THEN '' ELSE ((i * 13 % 900)::DOUBLE / 2)::VARCHAR END AS "DepDelayMinutes",
       (200 + i * 17 % 2500)::DOUBLE AS "Distance"
FROM range({rows}) AS r(i)
"""
LOOK_UPS = {
    "one flight": "FlightDate = 2022-06-05; Airline = delta air lines inc.; Flight_Number_Marketing_Airline = 2319",
    "a day at an airport": "FlightDate = 2022-05-17; Origin = AAX",
    "far flights of a day": "FlightDate = 2022-01-02; Distance > 500",
    "a text inside": "Airline ~ skywest; Origin = DBX",
    "all that were cancelled": "Cancelled = True",
}


def main() -> None:
    """Measure and write bench/tables.md."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "flight.csv"
        duckdb.sql(f"COPY ({FLIGHTS.format(rows=ROWS)}) TO '{path}' (HEADER)")
        started = time.perf_counter()
        write_database(folder)
        made = time.perf_counter() - started
        tables = open_tables(folder)
        assert tables is not None and tables.prepared
        times = {name: seconds(partial(look_up, tables, "flight", where)) for name, where in LOOK_UPS.items()}
        times["a mean"] = seconds(lambda: look_up(tables, "flight", "Origin = AAX", "DepDelayMinutes", "mean"))
        frame = pandas.read_csv(path, dtype=str, keep_default_na=False, usecols=["FlightDate", "Origin"])
        by_pandas = seconds(lambda: two_conditions(frame))
    slowest = max(times, key=lambda name: times[name])
    detail = ", ".join(f"{name} {1000 * value:.0f}" for name, value in times.items())
    write_results(
        Path(__file__).with_suffix(".md"),
        "Look-ups in a table of four million rows",
        [
            Measure("the slowest kind of look-up", 1000 * times[slowest], "ms", GOAL_MS, operator.lt, detail),
            Measure(
                "pandas against the tool", by_pandas / times["a day at an airport"], "times", GOAL_RATIO,
                operator.ge, f"a day at an airport takes pandas {1000 * by_pandas:.0f} ms",
            ),
            Measure("making the database", made, "s", None, operator.lt, f"{ROWS:,} rows"),
        ],
    )  # fmt: skip


def seconds(ask: Callable[[], object]) -> float:
    """The median time of a call, after one that is not timed."""
    ask()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        ask()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def two_conditions(frame: pandas.DataFrame) -> int:
    """The rows of one day and airport, text without case, as the tool did before it had a database."""
    day = frame["FlightDate"].str.strip().str.casefold() == "2022-05-17"
    return int((frame[day]["Origin"].str.strip().str.casefold() == "aax").sum())


if __name__ == "__main__":
    main()
