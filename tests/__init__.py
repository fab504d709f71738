"""Tests mirror `scaling/`; `support/` holds what they share. Nothing here reaches further than loopback."""

import os

# Set before DSPy and the hub's client are imported: they read them once. Nothing listens on port 9.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
for _name in ("GROQ_API_KEY", "OPENAI_API_KEY", "HF_HUB_OFFLINE", "http_proxy", "https_proxy", "all_proxy"):
    os.environ.pop(_name, None)
    os.environ.pop(_name.upper(), None)
