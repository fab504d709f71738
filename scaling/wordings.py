"""The table of hand-varied instructions, which is the one place that names them. Nothing here imports DSPy.

A wording adds a sentence to the instruction of every role of a program. The pilot of headroom tries them all, to see
how much another instruction can win before anybody pays an optimizer.
"""

from __future__ import annotations

OWN = "own"  # the benchmark's instruction as it is

WORDINGS: dict[str, str] = {
    OWN: "",
    "careful": "Read the whole input before you answer. Check your answer against it once more.",
    "stepwise": "Work through the input step by step and rule out alternatives before you decide.",
    "expert": "You have done this task for many years. Answer as an expert in it would.",
    "exact": "Give only what is asked for, in exactly the form that is asked for.",
}
