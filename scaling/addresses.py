"""Addresses of models' servers that the environment names."""

from __future__ import annotations

import os
import re

from scaling.schema import is_address
from scaling.types import UsageError


def address_in_environment(model_id: str, route: str) -> tuple[str, str | None] | None:
    """(address, variable of its key or None) of a provider's server in the environment; None where it names none.

    The names are those that LiteLLM reads. Raises UsageError for an empty or impossible address: with it the key would
    go to the provider itself.
    """
    provider = re.sub(r"\W", "_", route.split("/")[0]).upper()
    given = {name: os.environ[name] for name in (f"{provider}_BASE_URL", f"{provider}_API_BASE") if name in os.environ}
    for name, address in given.items():
        if not is_address(address):
            what = "not an http address" if address.strip() else "empty"
            raise UsageError(
                f"the environment variable {name} is {what}, so '{model_id}' has no server. "
                f"Type: unset {name} (or take it out of .env), or give it an address such as http://127.0.0.1:8000/v1."
            )
    key = f"{provider}_API_KEY"  # which LiteLLM sends there
    return next(((address, key if key in os.environ else None) for address in given.values()), None)
