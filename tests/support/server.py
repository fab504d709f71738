"""The scripted server has moved to scaling.testing; this name stays until nobody uses it."""

from scaling.testing import *  # noqa: F403
