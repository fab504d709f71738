"""Reading what users write: TOML files and values held to a declared type, or one clear line that says why not."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import pydantic
from pydantic_core import PydanticCustomError

from scaling.types import UsageError, did_you_mean

LARGEST_FILE_BYTES = 1_000_000
# What a name may be that becomes part of a path or of a line in a table: no "..", no separators.
SAFE_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.+ -]{0,119}$"
# Names of models are also divided by "/" and ":".
SAFE_MODEL = r"^[A-Za-z0-9_@][A-Za-z0-9_.+@:-]*(/[A-Za-z0-9_@~][A-Za-z0-9_.+@:-]*)*$"
SHA256 = r"^[0-9a-f]{64}$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
_PATTERNS = {
    SAFE_NAME: "give letters and digits, with . _ + - and spaces inside",
    SHA256: "give the 64 digits of the file's SHA-256, in small letters",
    SAFE_MODEL: "give letters and digits, with . _ + - : / inside",
    VARIABLE: "give the name of an environment variable",
}
Checked = TypeVar("Checked")


def is_address(text: str) -> bool:
    """Whether a text is an http address: with a host that could be looked up, and a port that could be connected to."""
    try:
        parts = urlsplit(text)
        (parts.hostname or "").encode("idna")
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return has_host and bool(re.fullmatch(r"https?://\S+", text)) and text.isprintable()


def _checked_address(text: str) -> str:
    if not is_address(text):
        raise PydanticCustomError("address", "give an address such as http://127.0.0.1:8000/v1")
    return text


Address = Annotated[str, pydantic.Field(max_length=500), pydantic.AfterValidator(_checked_address)]


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The tables of a TOML file; UsageError, in one line, for whatever is not one. `what` names the kind of file."""
    try:
        if not path.is_file():
            reason = "there is no such file" if not path.exists() else "that is a folder or a pipe"
            raise UsageError(f"{path} cannot be read as {what}: {reason}. Give the path of a TOML file.")
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise UsageError(f"{path} cannot be read as {what}: it is larger than {LARGEST_FILE_BYTES:,} bytes.")
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML ({str(error)[:200]}). Fix that line.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not TOML: it is not UTF-8 text. Save it as UTF-8.") from None
    except RecursionError:
        raise UsageError(f"{path} is not {what}: its values are nested too deeply.") from None
    except ValueError:
        raise UsageError(f"{path} is not {what}: it has a number with thousands of digits.") from None
    except OSError as error:
        raise UsageError(f"{shown(path)} cannot be read as {what}: {error.strerror}.") from None


def validated(
    kind: type[Checked], values: Mapping[str, Any], where: str, prefix: str = "", given: Mapping[str, Any] | None = None
) -> Checked:
    """`values` as the dataclass `kind`; UsageError names the first field that is unknown or wrong.

    where: how the message begins, the file for example. prefix: put before the field's name. given: values that do
    not come from the file.
    """
    known = [field.name for field in fields(kind) if field.metadata.get("file", True)]  # type: ignore[arg-type]
    extra = sorted(set(values) - set(known))
    if extra:
        names = ", ".join(prefix + name[:80] for name in extra[:5])
        hint = did_you_mean(extra[0][:80], known)
        raise UsageError(f"{where} has unknown fields {names}{hint}; possible: {', '.join(known)}.")
    return _checked(
        kind, {**values, **(given or {})}, lambda place, reason: f"{where}: {prefix}{place}: {reason}. Fix that field."
    )


def validated_flags(kind: type[Checked], values: Mapping[str, Any], flags: Mapping[str, str]) -> Checked:
    """As `validated`, for values from the command line or keywords; flags: field -> how the user gives it."""

    def message(place: str, reason: str) -> str:
        name = place.split(".")[0]
        return f"{flags.get(name, name)} {shown(values[name])} is not possible: {reason}."

    return _checked(kind, values, message)


def shown(value: Any) -> str:
    """A value as it may stand in a line: on one line, not too long."""
    text = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    text = "".join(character if character.isprintable() else "?" for character in text[:100])
    return text if len(text) <= 60 else text[:57] + "..."


def refuse_twice(names: Iterable[tuple[str, str]], where: str) -> None:
    """Raise UsageError where two owners, (name, owner), have the same name."""
    owners: dict[str, str] = {}
    for name, owner in names:
        if owners.setdefault(name, owner) != owner:
            raise UsageError(f"{where}: '{name}' names both '{owners[name]}' and '{owner}'. Give one of them another.")


def _checked(kind: type[Checked], values: Mapping[str, Any], message: Callable[[str, str], str]) -> Checked:
    try:
        checked: Checked = _adapter(kind).validate_python(dict(values))
        return checked
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(shown(part) for part in first["loc"] if not str(part).startswith(("function-", "constrained")))
        raise UsageError(message(place, _reason(first))) from None


def _adapter(kind: Any) -> pydantic.TypeAdapter[Any]:
    """The checker of a type, made once."""
    if kind not in _adapters:
        _adapters[kind] = pydantic.TypeAdapter(kind)
    return _adapters[kind]


_adapters: dict[Any, pydantic.TypeAdapter[Any]] = {}


def _reason(error: Any) -> str:
    """What is wrong with a value, as a user reads it."""
    context = error.get("ctx") or {}
    wordings = {
        "greater_than_equal": "give {ge} or more",
        "greater_than": "give more than {gt}",
        "less_than_equal": "give {le} or less",
        "int_type": "give a whole number",
        "float_type": "give a number",
        "finite_number": "give a number that is finite",
        "bool_type": "give true or false",
        "string_type": "give a text in quotes",
        "list_type": "give a list",
        "tuple_type": "give a list",
        "dict_type": "give a table",
        "literal_error": "possible: {expected}",
        "string_too_long": "give at most {max_length} characters",
        "string_too_short": "give at least {min_length} character",
        "too_long": "give at most {max_length}",
        "int_from_float": "give a whole number",
    }
    if error["type"] == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"], f"it must match {context['pattern']}")
    wording = wordings.get(error["type"])
    return wording.format(**context) if wording else " ".join(str(error["msg"]).split())[:200]
