"""Reference of the command line: every command and every exit code.

Commands come from ``jmarl.cli.commands.COMMANDS`` and its help texts, exit codes from
``jmarl.runs.exit_codes.ExitCode`` and its comments.
"""

from __future__ import annotations

import inspect
import re

from docs.generate.markdown import code, fence, join, table
from jmarl.cli.commands import COMMANDS, Command
from jmarl.runs.exit_codes import ExitCode


COMMANDS_TEXT = """\
# Commands

`jmarl <command>` and `python -m jmarl <command>` are the same. Every command is a thin shell over a
Python function. Exit codes are listed in [Exit codes](exit-codes.md)."""


EXIT_CODES_TEXT = """\
# Exit codes

Every command exits with one of these codes. A run also writes its code into `status.json`. A second
stop signal ends a run at once. Its code is 128 plus the signal number, such as 143 for SIGTERM."""

CODE = re.compile(r"^\s+(?P<name>\w+) = \d+  # (?P<meaning>.*)$", re.MULTILINE)
"""A member of ``ExitCode`` with its comment."""


def commands_page() -> str:
    """Return the page of all commands."""
    rows = [(f"[`{name}`](#{name})", c.summary) for name, c in COMMANDS.items()]
    sections = [section(name, command) for name, command in COMMANDS.items()]
    return join(COMMANDS_TEXT, table(("command", "purpose"), rows), *sections)


def section(name: str, command: Command) -> str:
    """Return the section of one command: its help text as printed."""
    return join(f"## `{name}` {{ #{name} }}", fence(command.help))


def exit_codes_page() -> str:
    """Return the page of all exit codes."""
    meanings = dict(CODE.findall(inspect.getsource(ExitCode)))
    rows = [(int(c), code(c.name), meanings.get(c.name, "-")) for c in ExitCode]
    return join(EXIT_CODES_TEXT, table(("code", "name", "meaning"), rows))
