"""Errors that are meant for people: the command line prints them as one line and exits with code 2."""

from __future__ import annotations


class BenchError(Exception):
    """Something the user can mend. The message is one line: what is wrong, then what to do."""
