"""What a record says of programs: the digest of the cell's own, and the source of one that it was given."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from scaling.types import Cell

CellId = Annotated[str, Meta(pattern="^[0-9A-Za-z_-]{1,64}$", description="a digest of all fields of the cell")]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]


class ProgramDigest(Struct, frozen=True):
    """What can change an answer or a score and is no field of the cell, as three digests. Every machine has the same.

    task: what is asked and how answers are scored. program: its prompts, and how it makes an answer of its calls.
    optimizer: its constants, and what it is told of an answer.
    """

    task: Digest
    program: Digest
    optimizer: Digest


class ProgramSource(Struct, kw_only=True):
    """The program that a cell was given, and where it came from.

    sha256: of the instructions and worked examples of its steps. cell: that which it was optimized in; null for a
    file, of which the name without folders is kept.
    """

    sha256: Digest
    file: str | None = None
    cell_id: CellId | None = None
    cell: Cell | None = None
