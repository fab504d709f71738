"""report.html, summary_results.md and summary_results.tex: three forms of one report, each with its own escapes."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import jinja2

from scaling.analysis.examples import (
    CELLS_WITH_EXAMPLES,
    ChangedProgram,
    TurnedAnswers,
    changed_programs,
    turned_answers,
)
from scaling.analysis.findings import Findings
from scaling.analysis.sentences import answer_lines, headline, marks_of, notes_of, recommendations
from scaling.analysis.tables import tables_of
from scaling.analysis.text import Table, latex, markdown, markdown_table, plain
from scaling.records.codec import encode

TEMPLATES, TEMPLATE = Path(__file__).parent, "report.html"
MEDIA_TYPES = {".png": "image/png", ".svg": "image/svg+xml", ".pdf": "application/pdf"}
TITLE = "Quality against calls, optimizers and models"
LATEX = r"""% Needs \usepackage{booktabs} and \usepackage{graphicx}.
{% for table in tables if table.rows %}
\begin{table}
\centering
\caption{ {{- table.title }}{{ marks -}} }\label{tab:{{ table.title | label }}}
{% if table.narrow %}
\footnotesize\setlength{\tabcolsep}{3pt}
{% endif %}
\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{
\begin{tabular}{ {{- table | columns | safe -}} }
\toprule
{% for name in table.columns %}{{ name }}{{ " & " | safe if not loop.last }}{% endfor %} \\
\midrule
{% for row in table.rows %}
{% for text in row %}{{ text }}{{ " & " | safe if not loop.last }}{% endfor %} \\
{% endfor %}
\bottomrule
\end{tabular}}
\end{table}

{% endfor %}
"""


@dataclass(frozen=True)
class Report:
    """What every form of the report says; the first table holds the verdicts.

    answers: a line a question. marks: in a few words, what keeps the numbers from being results.
    """

    headline: str
    answers: list[str]
    notes: list[str]
    recommendations: list[str]
    tables: list[Table]
    refused: list[str]
    marks: str
    title: str = TITLE


def report_of(f: Findings) -> Report:
    """The report on these findings."""
    notes = notes_of(f.results, f.summary)
    return Report(
        headline(f), answer_lines(f.answers), notes, recommendations(f), tables_of(f), f.refused,
        marks_of(f.results),
    )  # fmt: skip


def write_markdown(path: Path, report: Report) -> None:
    """summary_results.md: the same numbers as the report, for reading in a terminal."""
    parts = [f"# {report.title}", markdown(report.headline), *_bullets("Questions", report.answers)]
    parts += [f"> {markdown(note)}" for note in report.notes]
    parts += _bullets("Recommended", report.recommendations)
    for table in report.tables:
        shown = markdown_table(table.columns, table.rows) if table.rows else ""
        parts += [f"## {markdown(table.title)}", markdown(table.note), shown]
    parts += _bullets("Not compared", report.refused)
    path.write_text("\n\n".join(part for part in parts if part) + "\n", encoding="utf-8")


def write_latex(path: Path, report: Report) -> None:
    """summary_results.tex: the same tables for a paper (booktabs)."""
    environment = jinja2.Environment(finalize=_escape_unless_safe, trim_blocks=True)
    environment.filters["columns"] = _columns
    environment.filters["label"] = lambda title: "".join(ch if ch.isalnum() else "-" for ch in title.lower())
    marks = f" ({report.marks})" if report.marks else ""
    text = environment.from_string(LATEX).render(tables=report.tables, marks=marks)
    path.write_text(text, encoding="utf-8")


def write_html(path: Path, report: Report, f: Findings, pictures: dict[Path, str]) -> None:
    """report.html: one file that needs no network; pictures (path -> a sentence on it) are embedded."""
    programs: list[ChangedProgram] = list(changed_programs(f.results))
    answers: list[TurnedAnswers] = list(turned_answers(f.results))
    most_cells = CELLS_WITH_EXAMPLES if len(answers) >= CELLS_WITH_EXAMPLES else None
    write_page(
        path, TEMPLATE, report, pictures, programs=programs, answers=answers, most_cells=most_cells,
        environment=_environment(f),
    )  # fmt: skip


def write_page(path: Path, template: str, report: Report, pictures: dict[Path, str], **more: object) -> None:
    """A page of this folder's templates in the style of page.html; `more` is what only this template needs."""
    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(autoescape=True, finalize=_plain_text, loader=loader)
    figures = [(MEDIA_TYPES[p.suffix], base64.b64encode(p.read_bytes()).decode(), alt) for p, alt in pictures.items()]
    text = environment.get_template(template).render(report=report, figures=figures, **more)
    path.write_text(text, encoding="utf-8")


def _columns(table: Table) -> str:
    """LaTeX's columns of a table; those of a narrow one begin and end with no space."""
    columns = "l" * len(table.columns)
    return f"@{{}}{columns}@{{}}" if table.narrow else columns


def _bullets(title: str, sentences: list[str]) -> list[str]:
    return [f"## {title}", "\n".join(f"- {markdown(sentence)}" for sentence in sentences)] if sentences else []


def _escape_unless_safe(value: object) -> object:
    return value if hasattr(value, "__html__") else latex(value)


def _plain_text(value: object) -> object:
    return plain(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _environment(f: Findings) -> str:
    return encode(f.results.environment, indent=2).decode()
