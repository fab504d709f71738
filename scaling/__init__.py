"""The library under the scripts: run cells on one side, analyse records on the other (see README)."""
