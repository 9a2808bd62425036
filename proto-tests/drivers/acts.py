"""What every Python driver shares: the acts' texts, and one printed line an act.

A driver prints `ACT<TAB>VALUE`; the test knows which value is right. A failed act prints `!` and the error.
"""

import hashlib
import os
import sys
import traceback

LARGE = "abcdefghijklmnop" * (20 * 1024 * 1024 // 16)
TEXT = "grüße '*/ --"
CURSOR_ROWS = 10_000


def fact(name):
    """Where and as whom to connect, from the environment that libpq reads too."""
    return os.environ[name]


def say(act, *values):
    """One line: the values, joined."""
    line = "|".join(shown(value) for value in values)
    print(f"{act}\t{line}", flush=True)


def shown(value):
    """The form that all drivers' values have in common."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return " ".join(str(value).split("\n"))


def failed(act, error):
    """An act that did not go well."""
    traceback.print_exc(file=sys.stderr)
    print(f"{act}\t!{type(error).__name__}: {' '.join(str(error).split())[:300]}", flush=True)


def run(acts):
    """Every act, the next one too when one fails."""
    for act, work in acts.items():
        try:
            say(act, *work())
        except Exception as error:  # the test judges
            failed(act, error)


async def run_async(acts):
    """The same for coroutines."""
    for act, work in acts.items():
        try:
            say(act, *(await work()))
        except Exception as error:  # the test judges
            failed(act, error)


def digest(text):
    """Length and MD5 of a large value."""
    return len(text), hashlib.md5(text.encode()).hexdigest()
