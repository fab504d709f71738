"""Banking77 in three steps as a task app for hosted optimizers: python FILE --port 8015 (--help says more)."""

import sys

from benchmarks import banking77
from scaling.hosted.task_app import main

if __name__ == "__main__":
    sys.exit(main("banking77", banking77.CONFIG, steps=3))
