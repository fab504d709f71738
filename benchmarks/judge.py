"""Says whether two mathematical answers are equal: a JSON line [gold, given] in, a line 1 or 0 out, until the end.

Run by answers.py as a process of its own, where math-verify may use the signals that its time limits are made of.
"""

from __future__ import annotations

import json
import logging
import re
import resource
import signal
import sys

SECONDS = 3  # for each of the two answers to be read, and for the comparison
MEMORY = 2 * 1024**3  # bytes: 10^(10^10) written out would take more
FUNCTIONS = {"sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "log", "exp", "sqrt"}


def main() -> None:
    """Say ready, then answer until stdin ends. Ctrl-C is the sweep's to handle."""
    from math_verify import parse, verify

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    logging.disable(logging.CRITICAL)
    print("ready", flush=True)
    for line in sys.stdin:
        gold, given = (parse(marked(text), parsing_timeout=SECONDS) for text in json.loads(line))
        print(int(bool(gold and given and verify(gold, given, timeout_seconds=SECONDS))), flush=True)


def marked(text: str) -> str:
    """A bare expression, its functions as commands, between dollar signs: there math-verify looks for LaTeX.

    Sentences stay as they are; a sign of money is left out.
    """
    text = text.replace("\\$", "")
    words = set(re.findall(r"(?<![\\A-Za-z{])(?:[A-Za-z]{3,}|is|so|or|we|it)(?![A-Za-z])", text))
    if "$" in text or words - FUNCTIONS:
        return text
    text = re.sub(r"(?<!\\)sqrt\(([^()]*)\)", r"\\sqrt{\1}", text)
    return "$" + re.sub(rf"(?<![\\A-Za-z])({'|'.join(FUNCTIONS)}|pi)(?![A-Za-z])", r"\\\1", text) + "$"


if __name__ == "__main__":
    main()
