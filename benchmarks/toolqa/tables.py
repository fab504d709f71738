"""ToolQA's tables in DuckDB: made once from CSV files, and then only read.

A folder of small CSV files is read into memory. `python -m benchmarks.prepare toolqa` writes `tables.duckdb` beside
them, which is opened read-only and shared by all processes of a machine: the published table of flights has four
million rows. A cell's text is kept as it stands in the file (`c0`, `c1`, ...), and a column that holds nothing but
numbers has them beside its text (`n0`, ...), so that a comparison reads numbers and an answer shows the file's text.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from scaling.types import UsageError

DATABASE = "tables.duckdb"
Version = tuple[int, int]
File = tuple[str, Path, Version]  # a table's name, its CSV file, and that file's version
AGAIN = "Remove it, or make it again: python -m benchmarks.prepare toolqa --from DIR --out DIR."
LONGEST_CELL = 10_000_000
NUMBER = "try_cast(replace({}, ',', '') AS DOUBLE)"
# No file, no extension and no setting can be reached from a query; the last of them locks them.
LOCKED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "memory_limit": "4GB",  # of a query; a table's pages are read from its file
    "lock_configuration": True,
}


@dataclass(frozen=True)
class Column:
    """A column: its name in the file, and the names of its text and (of a column of numbers) of its numbers."""

    name: str
    text: str
    number: str | None


@dataclass(frozen=True)
class Tables:
    """An open database: the columns of each table by the table's name, and the table's own name in the database.

    digest: twelve digits over the CSV files that it was made from. prepared: it is a `tables.duckdb`.
    """

    connection: duckdb.DuckDBPyConnection
    columns: dict[str, list[Column]]
    inside: dict[str, str]
    digest: str
    prepared: bool

    def rows(self, query: str, values: Iterable[object] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query; safe to call from several threads."""
        return self.connection.cursor().execute(query, list(values)).fetchall()


def open_tables(folder: Path) -> Tables | None:
    """The tables of a folder: of its `tables.duckdb`, else of its CSV files; None where there are neither.

    Raises UsageError for a database that was made from other CSV files, or by a version that cannot be read.
    """
    paths = csv_files(folder)
    files = tuple((name, path, _version(path)) for name, path in paths.items())  # a changed file is opened anew
    if (folder / DATABASE).is_file():
        return _opened(folder / DATABASE, _version(folder / DATABASE), files)
    return _in_memory(files) if files else None


def csv_files(folder: Path) -> dict[str, Path]:
    """The CSV files of a folder by the names of their tables."""
    return {path.stem: path for path in sorted(folder.glob("*.csv"))}


def write_database(folder: Path) -> Path:
    """Make `tables.duckdb` of the CSV files of a folder; an older one is replaced when the new one is complete."""
    target, beside = folder / DATABASE, folder / f".{DATABASE}"
    beside.unlink(missing_ok=True)
    with duckdb.connect(str(beside)) as connection:
        _fill(connection, csv_files(folder))
        connection.execute("CHECKPOINT")
    beside.replace(target)
    return target


def digest_of(paths: Mapping[str, Path]) -> str:
    """Twelve digits over CSV files; '' for none."""
    whole = hashlib.sha256()
    for path in paths.values():
        with path.open("rb") as file:
            whole.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:12] if paths else ""


@functools.lru_cache(maxsize=8)
def _in_memory(files: tuple[File, ...]) -> Tables:
    connection = duckdb.connect()
    _fill(connection, {name: path for name, path, _ in files})
    for setting, value in LOCKED.items():
        connection.execute(f"SET {setting} = '{value}'")
    return _tables(connection, prepared=False)


@functools.lru_cache(maxsize=8)
def _opened(database: Path, version: Version, files: tuple[File, ...]) -> Tables:
    try:
        tables = _tables(duckdb.connect(str(database), read_only=True, config=LOCKED), prepared=True)
    except duckdb.Error as error:
        reason = str(error).splitlines()[0][:200]
        raise UsageError(f"{database} cannot be read ({reason}). {AGAIN}") from None
    made_from = json.loads(tables.rows("SELECT files FROM source")[0][0])
    if files and made_from != _sizes({name: path for name, path, _ in files}):
        raise UsageError(f"{database} was made from other CSV files than those beside it. {AGAIN}")
    return tables


def _tables(connection: duckdb.DuckDBPyConnection, prepared: bool) -> Tables:
    """What a filled database holds."""
    columns: dict[str, list[Column]] = {}
    listed = "SELECT table_name, name, place, is_number FROM columns ORDER BY table_name, place"
    for table, name, place, is_number in connection.execute(listed).fetchall():
        columns.setdefault(table, []).append(Column(name, f"c{place}", f"n{place}" if is_number else None))
    inside = {name: f"t{number}" for number, name in enumerate(columns)}
    ((digest,),) = connection.execute("SELECT digest FROM source").fetchall()
    return Tables(connection, columns, inside, digest, prepared)


def _fill(connection: duckdb.DuckDBPyConnection, paths: Mapping[str, Path]) -> None:
    """Read CSV files into tables t0, t1, ... in the order of their names."""
    connection.execute("CREATE TABLE columns (table_name VARCHAR, name VARCHAR, place INTEGER, is_number BOOLEAN)")
    for number, (table, path) in enumerate(sorted(paths.items())):
        header = _header(path)
        _read_csv(connection, path, len(header))
        numbers = _are_numbers(connection, len(header))
        parts = []
        for place, name in enumerate(header):
            parts.append(f"coalesce(c{place}, '') AS c{place}")
            if numbers[place]:
                parts.append(f"{NUMBER.format(f'c{place}')} AS n{place}")
            connection.execute("INSERT INTO columns VALUES (?, ?, ?, ?)", [table, name, place, numbers[place]])
        connection.execute(f"CREATE TABLE t{number} AS SELECT {', '.join(parts)} FROM raw")
        connection.execute("DROP TABLE raw")
        connection.execute(f"CREATE VIEW {_quoted(table)} AS SELECT {_named(header, numbers)} FROM t{number}")
    connection.execute("CREATE TABLE source (digest VARCHAR, files VARCHAR)")
    connection.execute("INSERT INTO source VALUES (?, ?)", [digest_of(paths), json.dumps(_sizes(paths))])


def _read_csv(connection: duckdb.DuckDBPyConnection, path: Path, width: int) -> None:
    """The table `raw` of a CSV file, every cell a text."""
    types = "{" + ", ".join(f"'c{place}': 'VARCHAR'" for place in range(width)) + "}"
    query = (
        f"CREATE TABLE raw AS SELECT * FROM read_csv(?, auto_detect=false, header=true, columns={types}, delim=',', "
        f"quote='\"', escape='\"', null_padding=true, strict_mode=false, max_line_size={LONGEST_CELL})"
    )
    try:
        connection.execute(query, [str(path)])
    except duckdb.Error as error:
        raise UsageError(f"{path} cannot be read as a table ({str(error).splitlines()[0][:200]}). Fix it.") from None


def _are_numbers(connection: duckdb.DuckDBPyConnection, width: int) -> list[bool]:
    """Of each column of `raw`, whether all of its cells that are not empty are numbers, and there is one."""
    tests = []
    for place in range(width):
        filled = f"nullif(trim(c{place}), '') IS NOT NULL"
        is_number = f"{NUMBER.format(f'c{place}')} IS NOT NULL"
        tests.append(f"coalesce(bool_and(NOT ({filled}) OR {is_number}) AND bool_or({filled}), false)")
    return list(connection.execute(f"SELECT {', '.join(tests)} FROM raw").fetchall()[0])


def _header(path: Path) -> list[str]:
    """The names of a CSV file's columns; one that comes again gets a number: name, name.1."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        names = next(csv.reader(file), [])
    if not names:
        raise UsageError(f"{path} is empty. A table needs a first line with the names of its columns.")
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        unique.append(f"{name}.{seen[name]}" if name in seen else name)
        seen[name] = seen.get(name, 0) + 1
    return unique


def _named(header: list[str], numbers: list[bool]) -> str:
    """The columns of a view: as numbers where they are, by the names in the file, which DuckDB reads without case."""
    seen: set[str] = set()
    parts = []
    for place, name in enumerate(header):
        while name.casefold() in seen:
            name += "_"
        seen.add(name.casefold())
        parts.append(f"{'n' if numbers[place] else 'c'}{place} AS {_quoted(name)}")
    return ", ".join(parts)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _version(path: Path) -> Version:
    """Size and time of change of a file."""
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


def _sizes(paths: Mapping[str, Path]) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in paths.values()}
