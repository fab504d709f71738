"""The description of an exported table as MLCommons' Croissant 1.0 (JSON-LD), for whoever publishes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from scaling.export.cells import ExportedCell
from scaling.export.tidy import Column

DATA_TYPES = {str: "sc:Text", int: "sc:Integer", float: "sc:Float", bool: "sc:Boolean"}
MIXED = "see the column licence of each row"
# The vocabulary of the format: which short names stand for which terms.
CROISSANT_TERMS = (
    "citeAs", "column", "data", "dataType", "equivalentProperty", "extract", "field", "fileProperty", "fileObject",
    "fileSet", "format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet",
    "references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip
TYPED_AS = {"data": "@json", "dataType": "@vocab"}


@dataclass
class Described:
    """What is said of a table as a whole, gathered while it is written. sha256: of its file."""

    name: str
    cells: int = 0
    benchmarks: set[str] = field(default_factory=set)
    models: set[str] = field(default_factory=set)
    licences: set[str | None] = field(default_factory=set)
    warnings: set[str] = field(default_factory=set)
    ended: datetime = datetime.fromtimestamp(0, UTC)
    sha256: str = ""

    def note(self, cell: ExportedCell) -> None:
        """Take in what one more cell adds."""
        self.cells += 1
        self.benchmarks.add(cell.cell.benchmark)
        self.models.add(cell.cell.model)
        self.licences.add(cell.rights.licence)
        self.warnings |= set(cell.warnings)
        self.ended = max(self.ended, cell.ended)

    @property
    def title(self) -> str:
        return f"Predictions of the sweep {self.name}"

    @property
    def text(self) -> str:
        """A short description, with what must be said of the scores."""
        about = f"{', '.join(sorted(self.benchmarks))} on {', '.join(sorted(self.models))}"
        warnings = "".join(f" Note: {warning}." for warning in sorted(self.warnings))
        return f"One row is one program's answer to one row of a benchmark: {self.cells} cells of {about}.{warnings}"

    @property
    def licence(self) -> str:
        """The licence of the rows where all have the same one."""
        (one, *others) = self.licences
        return MIXED if others or one is None else f"https://spdx.org/licenses/{one}.html"


def croissant(told: Described, table: str, columns: Sequence[Column]) -> dict[str, Any]:
    """The description of the file `table`, which lies beside it."""
    return {
        "@context": _context(),
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": told.title,
        "description": told.text,
        "license": told.licence,
        "datePublished": told.ended.date().isoformat(),
        "version": "1.0.0",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": table,
                "name": table,
                "contentUrl": table,
                "encodingFormat": "application/x-parquet",
                "sha256": told.sha256,
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "predictions",
                "name": "predictions",
                "field": [_field(column, table) for column in columns],
            }
        ],
    }


def _field(column: Column, table: str) -> dict[str, Any]:
    unit = f" ({column.unit})" if column.unit else ""
    return {
        "@type": "cr:Field",
        "@id": f"predictions/{column.name}",
        "name": column.name,
        "description": column.meaning + unit,
        "dataType": DATA_TYPES[column.kind],
        "source": {"fileObject": {"@id": table}, "extract": {"column": column.name}},
    }


def _context() -> dict[str, Any]:
    terms = {
        name: {"@id": f"cr:{name}", "@type": TYPED_AS[name]} if name in TYPED_AS else f"cr:{name}"
        for name in CROISSANT_TERMS
    }
    return {
        "@language": "en",
        "@vocab": "https://schema.org/",
        "sc": "https://schema.org/",
        "cr": "http://mlcommons.org/croissant/",
        "rai": "http://mlcommons.org/croissant/RAI/",
        "dct": "http://purl.org/dc/terms/",
        "conformsTo": "dct:conformsTo",
        "examples": {"@id": "cr:examples", "@type": "@json"},
        **terms,
    }
