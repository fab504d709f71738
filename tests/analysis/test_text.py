"""Texts from outside (names, errors, answers) keep their meaning in each format and get no power over it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling.analysis.figures import file_names
from scaling.analysis.text import interval_text, latex, markdown_table, percent, plain, plural, table_of

HOSTILE = st.text(st.sampled_from("ab \\{}^~&%$#_<>|`[](!)\x1b\n\x07—±…*"), max_size=20)
COMMANDS = {
    r"\textbackslash{}": "\\", r"\textasciicircum{}": "^", r"\textasciitilde{}": "~", r"\textless{}": "<",
    r"\textgreater{}": ">", r"\textbar{}": "|", r"\ensuremath{\pm}": "±", "---": "—", r"\ldots{}": "…",
} | {f"\\{ch}": ch for ch in "{}&%$#_"}  # fmt: skip
READ = re.compile("|".join(re.escape(command) for command in sorted(COMMANDS, key=len, reverse=True)))


@given(HOSTILE)
def test_latex_says_the_same_and_no_special_character_is_left_bare(text: str) -> None:
    written = latex(text)
    assert READ.sub(lambda found: COMMANDS[found[0]], written) == plain(text).replace("\n", " ")
    assert not re.search(r"[\\{}^~&%$#_<>|]", READ.sub("", written))


@given(st.lists(st.tuples(HOSTILE, HOSTILE), min_size=1, max_size=3))
def test_a_markdown_table_keeps_its_cells_and_no_html(rows: list[tuple[str, str]]) -> None:
    lines = markdown_table(("one", "two"), rows).splitlines()
    assert len(lines) == 2 + len(rows)
    for line in lines[2:]:
        bare = re.sub(r"\\.", "", line)  # without what is escaped
        assert bare.count("|") == 3 and "<" not in line and "\x1b" not in line and "](" not in bare


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"), ("\x1b]0;title\x07name", "name"), ("bell\x07", "bell"), ("a\x9b31mb", "ab"),
        ("cut \x1b[", "cut "), ("two\nlines\tand tab", "two\nlines\tand tab"), ("safe\u202egnp", "safegnp"), (7, "7"),
    ],
)  # fmt: skip
def test_control_characters_are_taken_out(text: object, shown: str) -> None:
    assert plain(text) == shown


def test_file_names_are_unique_and_stable() -> None:
    values = ["a/b", "a-b", "A-b", "superglue/boolq", "../up", "x"]
    names = file_names(values)
    assert names[2] == "A-b" and names[3] == "superglue-boolq" and names[5] == "x"
    assert len({name.casefold() for name in names}) == len(values)
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names)
    assert file_names(list(reversed(values))) == list(reversed(names))


def test_numbers_for_people() -> None:
    assert (percent(0.1234), percent(-0.05, sign=True), percent(None)) == ("12.3", "-5.0", "—")
    assert (interval_text(0.1, 0.2), interval_text(None, None), interval_text(float("nan"), 1.0)) == (
        "[10.0, 20.0]", "—", "—",
    )  # fmt: skip
    assert (plural(1, "cell"), plural(2, "cell"), plural(2, "cell is", "cells are")) == (
        "1 cell", "2 cells", "2 cells are",
    )  # fmt: skip
    assert table_of("t", "", []).rows == () and table_of("t", "", [{"a": "1"}]).columns == ("a",)
