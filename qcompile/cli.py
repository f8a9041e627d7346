"""The program `qcompile`: which command runs, and what becomes of errors."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import click

from qcompile.commands.compile import command
from qcompile.errors import QCompileError, UsageError

EXIT_INTERRUPTED = 130
COMMANDS = {
    "ensemble": "qcompile.commands.ensemble",
    "finetune": "qcompile.commands.finetune",
    "importance": "qcompile.commands.importance",
    "prune": "qcompile.commands.prune",
    "suggest": "qcompile.commands.suggest",
    "sweep": "qcompile.commands.sweep",
}
"""First argument -> the module whose command of that name runs in place of the main one."""


def run(arguments: list[str] | None = None) -> int:
    """Runs the command; every error a user can mend becomes one line and an exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    chosen: click.Command = command
    name = "qcompile"
    if given and given[0] in COMMANDS and not Path(given[0]).exists():
        chosen = getattr(import_module(COMMANDS[given[0]]), given[0])
        name, given = f"qcompile {given[0]}", given[1:]
    try:
        result = chosen.main(args=given, prog_name=name, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except QCompileError as error:
        return _fail(str(error), error.exit_code)
    except click.ClickException as error:
        return _fail(" ".join(error.format_message().split()), UsageError.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _fail("interrupted", EXIT_INTERRUPTED)
    except MemoryError:
        return _fail("out of memory; use a smaller --input-shape or fewer images", 2)
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        place = f"{error.filename}: " if error.filename is not None else ""
        return _fail(f"{place}{error.strerror or error}", UsageError.exit_code)


def _fail(message: str, code: int) -> int:
    # Not all messages are QCompileErrors', which hold printable characters only.
    plain = "".join(char if char.isprintable() else "?" for char in message)
    print(f"qcompile: error: {plain}", file=sys.stderr)
    return code


def main() -> None:
    """Entry point of the `qcompile` program."""
    sys.exit(run())


if __name__ == "__main__":
    main()
