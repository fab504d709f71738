"""ToolQA's graph of papers and authors (DBLP), from the published pickles to four tables.

A pickle can run any code when it is loaded, so these are read with a loader that knows a graph's data and nothing else.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from numbers import Integral
from pathlib import Path
from typing import Any

from scaling.types import UsageError

Table = Iterator[list[Any]]
PAPER = ("year", "venue", "n_citation", "doc_type", "page_start", "page_end")
# What a pickled graph may be made of, beside numbers, texts, lists and dictionaries.
PLAIN = {
    ("builtins", "set"), ("builtins", "object"), ("collections", "OrderedDict"), ("copyreg", "_reconstructor"),
    ("numpy", "dtype"), ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"),
}  # fmt: skip


class Graph:
    """Stands for every class of networkx: what was in it, without its code."""

    _node: dict[str, dict[str, Any]]
    _adj: dict[str, dict[str, dict[str, Any]]]


def tables_of(folder: Path) -> dict[str, Table]:
    """The rows of each table of the graph, the header first; empty where the folder has no graph.

    folder: holds paper_net.pkl, author_net.pkl, id2title_dict.pkl and id2author_dict.pkl. Raises UsageError for a file
    that is missing or holds anything else than data.
    """
    if not (folder / "paper_net.pkl").exists():
        return {}
    papers, authors = _load(folder / "paper_net.pkl"), _load(folder / "author_net.pkl")
    titles, names = _load(folder / "id2title_dict.pkl"), _load(folder / "id2author_dict.pkl")
    titles = {key: node.get("title", "") for key, node in papers._node.items()} | titles
    return {
        "dblp_papers": _papers(papers),
        "dblp_paper_authors": _paper_authors(papers),
        "dblp_citations": _citations(papers, titles),
        "dblp_coauthors": _coauthors(authors, titles, names),
    }


def _papers(graph: Graph) -> Table:
    yield ["title", *PAPER, "keywords"]
    for node in graph._node.values():
        if node.get("title"):
            keywords = "; ".join(map(str, node.get("keywords") or []))
            yield [node["title"], *(_plain(node.get(name)) for name in PAPER), keywords]


def _paper_authors(graph: Graph) -> Table:
    yield ["title", "author", "organization", "year", "n_citation"]
    for node in graph._node.values():
        for author in node.get("authors") or []:
            yield [node["title"], author["name"], author.get("org", ""), _plain(node.get("year")),
                   _plain(node.get("n_citation"))]  # fmt: skip


def _citations(graph: Graph, titles: dict[str, str]) -> Table:
    yield ["title", "cites"]
    for paper, cited in graph._adj.items():
        for other in cited:
            if titles.get(paper) and titles.get(other):
                yield [titles[paper], titles[other]]


def _coauthors(graph: Graph, titles: dict[str, str], names: dict[str, str]) -> Table:
    """Both directions of each pair."""
    yield ["author", "coauthor", "papers_together", "citations_together", "titles"]
    for author, others in graph._adj.items():
        for other, edge in others.items():
            listed = [titles.get(paper, "") for paper in edge["papers"]]
            citations = sum(count for count in edge["n_citation"] if isinstance(count, Integral))
            pair = names.get(author, author), names.get(other, other)
            yield [*pair, edge["weight"], citations, "; ".join(listed)]


def _plain(value: Any) -> str:
    """A cell: a venue's name; nothing where the release says '[BLANK]'."""
    if isinstance(value, dict):
        value = value.get("raw")
    return "" if value is None or value == "[BLANK]" else str(value)


class _Loader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("networkx.") or module == "networkx":
            return Graph
        if (module, name) in PLAIN:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no data")


def _load(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return _Loader(file).load()
    except (OSError, pickle.UnpicklingError, EOFError, AttributeError, ImportError, ValueError, TypeError) as error:
        raise UsageError(f"{path} cannot be read as a part of ToolQA's graph ({error}).") from None
