"""Raw releases of benchmarks as they are published, of real rows where they are beside this clone."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

FLIGHTS = (
    "FlightDate,Airline,Origin,Dest,Cancelled,DepDelayMinutes,Distance\n"
    "2022-01-19,Spirit,PIT,ORD,False,0.0,413.0\n2022-01-19,Delta,PIT,ATL,True,,526.0\n"
    "2022-05-17,Delta,FAT,DEN,False,25.5,844.0\n2022-05-17,Delta,FAT,LAX,False,7.5,209.0\n"
)
AGENDA = [
    {"id": 1, "event": "Grace attends the Broadway Show from 8:00 PM to 10:00 PM on 2022/02/17 in the theatre."},
    {"id": 2, "event": "Charles watches a baseball game from 1:00 PM to 4:00 PM on 2022/05/21."},
    {"id": 3, "event": "Grace swims on 2022/05/21."},
]
YELP = [
    {"name": "Smilies", "postal_code": "T5V 1H9", "stars": 3.5, "hours": {"Monday": "9:0-17:0"}, "is_open": None},
    {"name": "Snip", "postal_code": "19130", "stars": 5.0, "hours": None, "is_open": 1},
]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_toolqa(folder: Path, questions: list[dict[str, Any]]) -> Path:
    """ToolQA's repository with four of its corpora: flights, agenda, yelp and the graph of dblp."""
    for row in questions:
        domain, difficulty = row["domain"], row["difficulty"]
        stem = "genda-hard" if (domain, difficulty) == ("agenda", "hard") else f"{domain}-{difficulty}"
        path = folder / "data" / "questions" / difficulty / f"{stem}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = {name: row[name] for name in ("qid", "question", "answer")}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(raw) + "\n")
    corpora = folder / "data" / "external_corpus"
    for name in ("flights", "dblp"):
        (corpora / name).mkdir(parents=True)
    (corpora / "flights" / "Combined_Flights_2022.csv").write_text(FLIGHTS)
    write_lines(corpora / "agenda" / "agenda_descriptions_merged.jsonl", AGENDA)
    write_lines(corpora / "yelp" / "yelp_academic_dataset_business.json", YELP)
    write_graph(corpora / "dblp")
    return folder


def write_graph(folder: Path) -> None:
    """Two papers of three authors, pickled by classes of networkx's names."""
    by = {"a1": "Guoxian Yu", "a2": "Qiaoyu Tan", "a3": "Lili He"}
    paper = {
        "venue": {"raw": "ICLR"},
        "doc_type": "Conference",
        "page_start": "",
        "page_end": "",
        "keywords": ["x", "y"],
    }
    authors = [{"id": key, "name": name, "org": "Lab"} for key, name in by.items()]
    papers = {
        "p1": paper | {"title": "Leak", "year": 2021, "n_citation": 7, "authors": authors[:2]},
        "p2": paper | {"title": "Search", "year": 2022, "n_citation": 3, "authors": authors},
    }
    pair = {"weight": 2, "papers": ["p1", "p2"], "n_citation": [7, 3]}
    one = {"weight": 1, "papers": ["p2"], "n_citation": [3]}
    others = {"a1": {"a2": pair, "a3": one}, "a2": {"a1": pair, "a3": one}, "a3": {"a1": one, "a2": one}}
    with networkx() as (Graph, DiGraph):
        graphs = {
            "paper_net": made(DiGraph, papers, {"p1": {}, "p2": {"p1": {}, "unknown": {}}}),
            "author_net": made(Graph, {key: {"org": "Lab"} for key in by}, others),
            "id2title_dict": {"p1": "Leak", "p2": "Search"},
            "id2author_dict": by,
        }
        for name, value in graphs.items():
            (folder / f"{name}.pkl").write_bytes(pickle.dumps(value))


def made(kind: type, nodes: dict[str, Any], edges: dict[str, Any]) -> Any:
    graph = kind()
    graph.__dict__.update(graph={}, _node=nodes, _adj=edges)
    return graph


@contextmanager
def networkx() -> Iterator[tuple[type, type]]:
    """Classes under the names of networkx's, while the block runs."""
    modules = {name: ModuleType(name) for name in ("networkx", "networkx.classes")}
    for name, kind in (("graph", "Graph"), ("digraph", "DiGraph")):
        module = ModuleType(f"networkx.classes.{name}")
        setattr(module, kind, type(kind, (), {"__module__": module.__name__}))
        modules[module.__name__] = module
    sys.modules.update(modules)
    try:
        yield modules["networkx.classes.graph"].Graph, modules["networkx.classes.digraph"].DiGraph
    finally:
        for name in modules:
            del sys.modules[name]
