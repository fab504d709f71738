"""Reading command lines: what a user gets wrong is one line, of a length that can be read, and exit code 2."""

from __future__ import annotations

import argparse
import math
import re
import sys
from pathlib import Path
from typing import NoReturn

from scaling.schema import shown
from scaling.types import EXIT_USAGE, UsageError

NUMBER = r"[+-]?([0-9]{1,15}\.?[0-9]{0,25}|\.[0-9]{1,25})(e[+-]?[0-9]{1,3})?|[+-]?(nan|inf)"
LONGEST_LINE = 300


class ArgumentParser(argparse.ArgumentParser):
    """A parser whose errors are one line and which takes no abbreviated flags."""

    def __init__(self, description: str) -> None:
        super().__init__(description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Print the error and end the process with exit code 2."""
        print(f"error: {_one_line(message)}. Type --help for all flags.", file=sys.stderr)
        sys.exit(EXIT_USAGE)


def whole_number(text: str) -> int:
    """An integer as people write it: digits, perhaps a minus."""
    if not re.fullmatch(r"-?[0-9]{1,12}", text):
        raise argparse.ArgumentTypeError(f"'{shown(text)}' is not a whole number of at most 12 digits")
    return int(text)


def number(text: str) -> float:
    """A decimal number as people write it."""
    if not re.fullmatch(NUMBER, text.lower()):
        raise argparse.ArgumentTypeError(f"'{shown(text)}' is not a number")
    return float(text)


def name_and_value(text: str) -> tuple[str, bool | int | str]:
    """'name=value' as a pair, where the value is true, false, a whole number or a text."""
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise argparse.ArgumentTypeError(f"'{shown(text)}' is not NAME=VALUE")
    if value in ("true", "false"):
        return name, value == "true"
    return name, whole_number(value) if re.fullmatch(r"-?[0-9]+", value) else value


def positive_number(text: str) -> float:
    """A number above 0."""
    value = number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"'{shown(text)}' is not a number above 0")
    return value


def check_output_folder(folder: Path, flag: str = "--output-dir") -> None:
    """Raise UsageError, naming the flag, where `folder` cannot be made: it, or one above it, is a file or no name."""
    try:
        folder.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a name that is too long, a link to itself, a null byte
        raise UsageError(f"{flag}: '{shown(folder)}' is no folder's name ({shown(error)}). Give another.") from None
    existing = next((path for path in (folder, *folder.parents) if path.exists()), None)
    if existing is not None and not existing.is_dir():
        raise UsageError(f"{flag}: {existing} is a file. Give a folder.")


def _one_line(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 3] + "..."
