"""`python -m scaling.sandbox`: fetch what the sandbox needs, once."""

import sys

from scaling.sandbox.deno import install
from scaling.types import UsageError

if __name__ == "__main__":
    try:
        install()
    except UsageError as problem:
        sys.exit(f"error: {problem}")
    print("the sandbox is ready")
