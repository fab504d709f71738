"""The file .env: keys and addresses for this process. The environment wins."""

from __future__ import annotations

import os
import re
from pathlib import Path

from scaling.types import UsageError

NAME = r"[A-Za-z_][A-Za-z0-9_.-]*"


def load_dotenv_file(path: Path = Path(".env")) -> None:
    """Set what the file sets and the environment does not; nothing where there is no file.

    python-dotenv decides what parses: values in quotes may have several lines. Raises UsageError, in one line and
    without a value in it, for a line that does not parse and for a file that cannot be read.
    """
    for name, value in dotenv_values_of(path).items():
        os.environ.setdefault(name, value)


def dotenv_values_of(path: Path = Path(".env")) -> dict[str, str]:
    """The values that the file sets; none where there is no file. Raises UsageError as `load_dotenv_file`."""
    if not path.is_file():
        return {}
    from dotenv import dotenv_values
    from dotenv.parser import parse_stream

    try:
        with path.open(encoding="utf-8-sig") as lines:
            for binding in parse_stream(lines):
                if binding.error or (binding.key is not None and not re.fullmatch(NAME, binding.key)):
                    number = binding.original.line + _blank_lines_before(binding.original.string)
                    raise UsageError(
                        f"{path}, line {number} does not parse. Write NAME=value, or a comment starting with #."
                    )
        values = dotenv_values(path, encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text. Save it as UTF-8.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}).") from None
    for name, value in values.items():
        if value is not None and "\0" in value:
            raise UsageError(f"{path}: the value of {name} has a null byte in it. Take it out.")
    return {name: value for name, value in values.items() if value is not None}


def _blank_lines_before(text: str) -> int:
    """A binding of python-dotenv begins with the blank lines before it."""
    return text[: len(text) - len(text.lstrip())].count("\n")
