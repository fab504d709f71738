"""What is left to `make chaos`: tests of many seconds, each beside quicker ones of the same thing in `make test`."""

from __future__ import annotations

import os

import pytest

only_in_chaos = pytest.mark.skipif("CHAOS" not in os.environ, reason="many seconds: make chaos")
