"""When two answers are the same: as numbers, as words, as mathematics. Shared by the benchmarks with free-text answers.

Mathematics is judged by the library math-verify in a process of its own (judge.py): its time limits are signals,
which only a main thread can have, and an answer like 9^9^9^9 must not stop a sweep that is paid for.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import unicodedata
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import IO, cast

from scaling.types import CellStopped

# A minus counts where no digit, letter or bracket is before it: 10-12 holds 10 and 12.
NUMBER = re.compile(r"(?:(?<![\w)])-[$£€]?|[$£€]\s?-?)?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+)")
LONGEST = 400  # characters of an answer that the judge is asked about; a final answer is shorter
JUDGE = Path(__file__).with_name("judge.py")
PATIENCE = 12.0  # seconds until the judge is given up: its own limits, three times 3 s, do not reach into long products


def numbers_in(text: str) -> list[Fraction]:
    """All numbers of a text in order; thousands' commas and signs of money are no part of them."""
    numbers = NUMBER.findall(text.replace("\u2212", "-"))
    # By way of Decimal: int() takes no text of more than 4,300 digits.
    return [Fraction(Decimal(re.sub(r"[,$£€\s]", "", number))) for number in numbers]


def only_number(text: str) -> Fraction | None:
    """The number that a text is, with a sign of money, a percent sign or a full stop; None where there is more."""
    text = text.strip().rstrip(".").replace("\u2212", "-").strip()
    whole = NUMBER.fullmatch(text.removesuffix("%").strip())
    return numbers_in(whole.group())[0] if whole else None


def normalise_words(text: str) -> str:
    """Lower case, composed letters, one space between words, no quotes or full stop around."""
    return " ".join(unicodedata.normalize("NFC", text.lower()).split()).strip(" .\"'`")


def boxed(text: str) -> str | None:
    r"""The contents of the last \boxed or \fbox of a text, with its braces balanced; None without one."""
    start = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if start < 0:
        return None
    rest = text[start:].removeprefix("\\boxed").removeprefix("\\fbox").lstrip()
    if not rest.startswith("{"):
        return re.split(r"[$\s]", rest, maxsplit=1)[0] or None
    depth = 0
    for place, char in enumerate(rest):
        escaped = place and rest[place - 1] == "\\"
        depth += 0 if escaped else {"{": 1, "}": -1}.get(char, 0)
        if depth == 0:
            return rest[1:place].strip()
    return None


def normalise_latex(text: str) -> str:
    """LaTeX without what changes no value: spaces, sizes of brackets, units, signs of money, degree and percent."""
    text = text.strip().rstrip(".").replace("\\!", "")
    text = re.sub(r"\\(?:left|right|displaystyle)(?![a-zA-Z])|\\[,;:$%]|\\ |[$%~]", "", text)
    text = re.sub(r"\^\s*(?:\\circ|\{\s*\\circ\s*\})", "", text)
    text = re.sub(r"\\[dtc]frac", r"\\frac", text)
    text = re.sub(r"(?<=[\d}])\s*\\(?:text|mbox|mathrm)\{[^{}]*\}(?:\^\{?\d\}?)?$", "", text)
    text = re.sub(r"\\(?:text|mbox|mathrm|textbf|mathbf)\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"^\s*[a-zA-Z]\s*(?:=|\\in(?![a-z]))", "", text)
    text = re.sub(r"\\frac\s*(\d)\s*(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\s+", "", text)
    text = re.sub(r"^\((\w)\)$", r"\1", text)
    return text.replace(",", "") if re.fullmatch(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?", text) else text


class Judge:
    """The process that says whether two mathematical answers are equal; it starts at the first question.

    script: what the process runs. patience: seconds until it is given up. Thread-safe; it takes one question at a time.
    """

    def __init__(self, script: Path = JUDGE, patience: float = PATIENCE):
        self.script, self.patience = script, patience
        self.process: subprocess.Popen[str] | None = None
        self.equal = lru_cache(maxsize=20_000)(self._ask)
        self._lock = threading.Lock()

    def _ask(self, gold: str, given: str) -> bool:
        """What the process says; False where it does not answer in time. Raises CellStopped where it cannot start."""
        with self._lock:
            if self.process is None or self.process.poll() is not None:
                self.process = _started(self.script)
            asked, replies = _pipes(self.process)
            limit = threading.Timer(self.patience, self.process.kill)
            limit.start()
            try:
                asked.write(json.dumps([gold, given]) + "\n")
                asked.flush()
                reply = replies.readline()
            except OSError:  # it was ended from outside; the next question gets a new one
                reply = ""
            finally:
                limit.cancel()
            if not reply:
                self.process.kill()
                self.process.wait()
            return reply.strip() == "1"


def _started(script: Path) -> subprocess.Popen[str]:
    """A process that is ready. Raises CellStopped where it does not start, because a score of 0 would hide that."""
    # -P: this folder, which holds a package called math, must not come before the standard library.
    command = [sys.executable, "-P", str(script)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if _pipes(process)[1].readline().strip() != "ready":
        process.kill()
        raise CellStopped("error", "the judge of mathematical answers does not start. Is math-verify installed?")
    return process


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    """Where questions go in and replies come out."""
    return cast(IO[str], process.stdin), cast(IO[str], process.stdout)


judge = Judge()


def same_maths(gold: str, given: str) -> bool:
    """Whether an answer is the gold one: the same LaTeX when normalised, or mathematically equal (math-verify)."""
    inner = boxed(given)
    given = given if inner is None else inner
    right, answer = normalise_latex(gold), normalise_latex(given)
    if not answer or right == answer:
        return bool(answer) and right == answer
    if re.fullmatch(r"[A-Za-z]{2,}|[A-Z]", right):  # a word or a letter of a choice is no product of variables
        return right.lower() == answer.lower()
    return len(given) <= LONGEST and judge.equal(gold, given)
