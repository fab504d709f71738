"""What a function is: the same everywhere, another one when anything that it uses is another, and nothing else."""

from __future__ import annotations

import functools
import importlib
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from scaling.definitions import described
from scaling.types import digest

ROOT = Path(__file__).parent.parent
METRIC = '''
import math
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from helping import near

CUT = 0.5
NAMES = {"b": [2, 3], "a": {"x", "y"}}
NUMBER = re.compile("[0-9]+")
SHARE = Fraction(1, 3)
TABLE = Path(__file__).with_name("table.csv")
_seen = {}


@dataclass
class Judge:
    """Judge it."""

    strict: bool = True

    def __call__(self, gold, pred):
        return near(gold, pred) if self.strict else CUT


def metric(gold, pred, trace=None, weight=1.5):
    """One for the right answer."""
    # near is enough
    _seen[gold] = pred
    rest = f"{pred!r:>{4}}" f" {{}}"
    return near(gold, pred) * weight + CUT + len(NAMES) + SHARE + len(TABLE.name) + len(NUMBER.findall(rest))


def made(limit):
    def limited(gold, pred, trace=None):
        from late import rounded

        return rounded(metric(gold, pred)) > limit

    return limited


limited = made(0.25)
'''
HELPING = "def near(gold, pred):\n    return gold.strip() == pred\n\n\ndef unused():\n    return 1\n"
LATE = "def rounded(value):\n    return round(value, 2)\n"


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ModuleType]]:
    """Writes the module of a metric and what it uses into a new folder, with changes (old=new), and imports it."""
    numbers = iter(range(100))

    def written(**changes: str) -> ModuleType:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        (folder / "table.csv").write_text(changes.get("table", "a,b\n"))
        old, new = changes.get("old", ""), changes.get("new", "")
        for name, text in (("measuring", METRIC), ("helping", HELPING), ("late", LATE)):
            (folder / f"{name}.py").write_text(text.replace(old, new) if old else text)
            sys.modules.pop(name, None)
        monkeypatch.syspath_prepend(str(folder))
        return importlib.import_module("measuring")

    yield written
    for name in ("measuring", "helping", "late"):
        sys.modules.pop(name, None)


def of(module: ModuleType) -> str:
    return digest(described(module.limited, module.Judge(False)))


CHANGES = {
    "an operator": ("== pred", "!= pred"),
    "a constant": ("CUT = 0.5", "CUT = 0.75"),
    "a table": ("[2, 3]", "[2, 4]"),
    "a pattern": ("[0-9]+", "[0-9]*"),
    "a number of a library": ("Fraction(1, 3)", "Fraction(1, 4)"),
    "a helper in another file": ("strip", "lstrip"),
    "what is imported when it is called": ("value, 2", "value, 3"),
    "a default": ("weight=1.5", "weight=2.5"),
    "a variable that it closes over": ("made(0.25)", "made(0.5)"),
    "a method": ("if self.strict", "if not self.strict"),
    "a class's docstring, which DSPy shows": ("Judge it.", "Judge it well."),
}


@pytest.mark.parametrize(("old", "new"), CHANGES.values(), ids=list(CHANGES))
def test_a_change_of_anything_that_is_used_is_another_function(write: Callable, old: str, new: str) -> None:
    assert of(write()) != of(write(old=old, new=new))


def test_the_content_of_a_file_that_is_named_counts(write: Callable) -> None:
    assert of(write()) != of(write(table="a,c\n"))


UNCHANGED = {
    "a comment": ("near is enough", "near will do"),
    "a docstring": ("One for the right answer.", "1.0 for it."),
    "lines between": ("\n\n\ndef made", "\n\n\n\n# more\n\ndef made"),
    "what is not used": ("return 1", "return 2"),
    "a type hint": ("def near(gold, pred)", "def near(gold: str, pred: str) -> bool"),
    "nothing, in another folder": ("", ""),
}


@pytest.mark.parametrize(("old", "new"), UNCHANGED.values(), ids=list(UNCHANGED))
def test_what_changes_no_value_is_the_same_function(write: Callable, old: str, new: str) -> None:
    assert of(write()) == of(write(old=old, new=new))


def test_what_a_function_keeps_while_it_runs_is_no_part_of_it(write: Callable) -> None:
    module = write()
    before = of(module)
    assert module.limited("1", "1")
    assert module._seen
    assert of(module) == before


def test_no_path_and_no_address_is_in_it(write: Callable, tmp_path: Path) -> None:
    text = str(described(write().limited, functools.partial(print, tmp_path), object(), iter([1])))
    assert str(tmp_path) not in text
    assert "0x" not in text


def test_a_function_that_exec_made_without_a_module_is_described() -> None:
    names: dict[str, Any] = {}
    exec("def double(x): return 2 * x", names)  # its globals have no __name__
    assert described(names["double"]) == described(names["double"])


def test_a_function_without_source_counts_by_its_code() -> None:
    def typed(text: str) -> Any:
        names: dict[str, Any] = {"__name__": "typed_at_a_prompt"}
        exec(text, names)
        return described(names["metric"])

    assert typed("def metric(gold, pred): return gold == pred") == typed("def metric(gold, pred): return gold == pred")
    assert typed("def metric(gold, pred): return gold == pred") != typed("def metric(gold, pred): return gold != pred")


def test_two_functions_that_call_each_other_end() -> None:
    def odd(n: int) -> bool:
        return n > 0 and even(n - 1)

    def even(n: int) -> bool:
        return n == 0 or odd(n - 1)

    around: list[Any] = [odd]
    around.append(around)
    assert described(odd, around) == described(odd, around)


def test_another_process_and_another_python_say_the_same(write: Callable, tmp_path: Path) -> None:
    """The digest is written down: where a new Python sees other syntax trees, this fails."""
    expected = of(write())
    text = """
    import sys
    sys.path[:0] = sys.argv[1:]
    import measuring
    from scaling.definitions import described
    from scaling.types import digest
    print(digest(described(measuring.limited, measuring.Judge(False))))
    """
    command = [sys.executable, "-c", textwrap.dedent(text), str(tmp_path / "0"), str(ROOT)]
    said = {
        subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=tmp_path, env={"PYTHONHASHSEED": seed}
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert said == {expected}
    assert expected == "8256bf5e53722944b1584a340c25407ba59b34914e8575db3670330527839a47"
