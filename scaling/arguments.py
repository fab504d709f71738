"""Command lines: what a user gets wrong is one line, of a length that can be read, and exit code 2."""

from __future__ import annotations

import argparse
import errno
import functools
import math
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal, NoReturn, ParamSpec

from scaling.redact import redact
from scaling.schema import shown
from scaling.types import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, UsageError

NUMBER = r"[+-]?([0-9]{1,15}\.?[0-9]{0,25}|\.[0-9]{1,25})(e[+-]?[0-9]{1,3})?|[+-]?(nan|inf)"
LONGEST_LINE = 300
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
Arguments = ParamSpec("Arguments")


def one_line_errors(main: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """Decorates the main function of a command: no mistake, unusable file, closed output or Ctrl-C is a traceback."""

    @functools.wraps(main)
    def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
        try:
            try:
                return _exit_code(lambda: main(*args, **kwargs))
            finally:
                sys.stdout.flush()
        except BrokenPipeError:  # nobody reads the output any more, as in `| head -1`
            _discard_output()
            return EXIT_INTERRUPTED

    return run


def _exit_code(main: Callable[[], int]) -> int:
    """What main returns, or the code of its error, which is then on standard error."""
    try:
        _check_docstrings()
        return main()
    except BrokenPipeError:
        raise
    except UsageError as error:
        message, code = str(error), EXIT_USAGE
    except KeyboardInterrupt:
        print("\ninterrupted. Type the same command again.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except OSError as error:
        where = "" if error.filename is None else f"{str(error.filename)[-200:]} cannot be used: "
        message, code = f"{where}{error.strerror or error}", EXIT_FAILED if error.errno in DISK_FULL else EXIT_USAGE
    print(f"error: {redact(message)}", file=sys.stderr)
    return code


def _check_docstrings() -> None:
    """Raise UsageError where Python has dropped them: some are the instructions that models are given."""
    if sys.flags.optimize > 1:
        raise UsageError("python -OO takes the models' instructions out of the program. Type python without -OO.")


def _discard_output() -> None:
    """Lead a closed output to nowhere, so that Python can end without complaining that it cannot be written."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            with suppress(OSError):
                os.dup2(nowhere, stream.fileno())


class ArgumentParser(argparse.ArgumentParser):
    """A parser whose errors are one line and which takes no abbreviated flags.

    doc: a docstring, whose first line describes the command.
    """

    def __init__(self, doc: str | None) -> None:
        super().__init__(description=(doc or "").partition("\n")[0], allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Print the error and end the process with exit code 2."""
        print(f"error: {_one_line(message)}. Type --help for all flags.", file=sys.stderr)
        sys.exit(EXIT_USAGE)


def whole_number(text: str) -> int:
    """An integer as people write it: digits, perhaps a minus."""
    if not re.fullmatch(r"-?[0-9]{1,12}", text):
        raise argparse.ArgumentTypeError(f"'{shown(text)}' is not a whole number of at most 12 digits")
    return int(text)


def auto_or_number(text: str) -> int | Literal["auto"]:
    """A whole number, or the word auto."""
    return "auto" if text == "auto" else whole_number(text)


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
        existing = next((path for path in (folder, *folder.parents) if path.exists()), None)
    except (OSError, RuntimeError, ValueError) as error:  # a name that is too long, a link to itself, a null byte
        raise UsageError(f"{flag}: '{shown(folder)}' is no folder's name ({shown(error)}). Give another.") from None
    if existing is not None and not existing.is_dir():
        raise UsageError(f"{flag}: {existing} is a file. Give a folder.")


def _one_line(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 3] + "..."
