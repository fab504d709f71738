"""The table of formats of a program that leaves, which is the one place that names them.

To add one, write its function and add one `Format`. The functions are named as text, as they need DSPy.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """A format. function: as 'module:function', from the program's `Source` and lines about it to {file name: text}."""

    name: str
    what: str
    function: str


FORMATS: dict[str, Format] = {
    of.name: of
    for of in (
        Format(
            "openai-messages",
            "messages of each step, with marks for the inputs",
            "scaling.portable.written:messages",
        ),
        Format("prompt.txt", "the same to read and copy", "scaling.portable.written:prompt"),
        Format(
            "litellm", "messages and a script that answers rows without DSPy", "scaling.portable.written:litellm_script"
        ),
        Format("dspy", "a DSPy module that needs nothing of this project", "scaling.portable.written:dspy_module"),
    )
}
