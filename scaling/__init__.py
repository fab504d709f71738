"""The library under the scripts: run cells on one side, analyse records on the other (see README)."""

import os

# Else DSPy and LiteLLM ask the network for prices when they are first used.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
