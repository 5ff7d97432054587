"""The command line. Nothing heavy is imported here: `failout --help` answers at once."""

from __future__ import annotations

import errno
import os
import signal as signals  # this package has a module of that name
import sys
import traceback
import warnings
from typing import TYPE_CHECKING, Final

from orchestrator.core.errors import FailoutError, Refused, Transient

if TYPE_CHECKING:
    import click

# What the process ends with, beyond the codes of core.errors and cli.deploy (docs/exit-codes.md).
UNEXPECTED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130
READER_GONE: Final = 141
TERMINATED: Final = 143


def main() -> None:
    """Run the command line and end with a documented exit code (docs/exit-codes.md)."""
    terminated = _on_sigterm_as_on_ctrl_c()
    try:
        code = run(sys.argv[1:])
    finally:
        signals.signal(signals.SIGTERM, signals.SIG_DFL)
    if terminated and code == INTERRUPTED:
        _say("ended by SIGTERM; what was under way stays as it stands\nnext: failout status")
        code = TERMINATED
    elif code == INTERRUPTED:
        _say("interrupted")
    sys.exit(code)


def _on_sigterm_as_on_ctrl_c() -> list[int]:
    """Let a command end in order at SIGTERM too, as at Ctrl-C; what is returned says whether one came.

    A command with handlers of its own (`serve`, `agent`, `lab traffic`) puts them in this one's place.
    """
    came: list[int] = []
    ours = os.getpid()

    def end(number: int, _: object) -> None:
        if os.getpid() != ours:  # a child that was forked, as those of `sim`: whoever ends it knows why
            signals.signal(number, signals.SIG_DFL)
            signals.raise_signal(number)
        came.append(number)
        if not callable(signals.getsignal(signals.SIGINT)):  # begun with `&` by a script: its Ctrl-C is ignored
            raise KeyboardInterrupt
        signals.raise_signal(signals.SIGINT)

    signals.signal(signals.SIGTERM, end)
    return came


def run(args: list[str]) -> int:
    import click  # noqa: PLC0415 - measured: half of the start-up time

    debug = "--debug" in args
    if not debug and not sys.warnoptions:
        warnings.simplefilter("ignore")  # A library's warning is no line of ours; --debug shows it.
    try:
        code = _run(args)
        if sys.stdout is not None:  # None: started with its output closed
            sys.stdout.flush()  # Here, where its failure is still told in one line.
    except click.UsageError as error:
        sys.stderr.write(f"{_usage(error, args)}\n")
        return USAGE
    except click.ClickException as error:
        _say(error.format_message())
        return USAGE
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output is gone; say nothing, and do not fail again at exit.
        _discard_output()
        return READER_GONE
    except FailoutError as error:
        if debug:
            traceback.print_exc()
        _tell(error)
        return error.exit_code
    except Exception as error:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EFBIG, errno.EDQUOT} and not debug:
            _discard_output()
            _say(f"cannot write: {error.strerror}; free some space, then run it again")
            return Transient.exit_code
        if debug:
            raise
        _say(f"unexpected {type(error).__name__}: {error}; run it again with --debug")
        return UNEXPECTED
    return code


def _run(args: list[str]) -> int:
    from orchestrator.cli.root import root  # noqa: PLC0415

    try:
        result = root.main(args=args, prog_name="failout", standalone_mode=False)
    except SystemExit as end:
        if type(sys.stdout).__name__.endswith("PacifyFlushWrapper"):  # click's way to say that the reader is gone
            raise BrokenPipeError from end
        return end.code if isinstance(end.code, int) else 0
    return result if isinstance(result, int) else 0


def _discard_output() -> None:
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _usage(error: click.UsageError, args: list[str]) -> str:
    """One line: what is wrong, what was meant, where the options are listed; or the help of a group that is named alone."""
    from click.exceptions import NoArgsIsHelpError  # noqa: PLC0415

    if isinstance(error, NoArgsIsHelpError):
        return error.format_message()
    told = error.format_message().rstrip(".")
    command = error.ctx.command_path if error.ctx else _named(args)
    told = f"failout: {told[:1].lower()}{told[1:]}"
    return f"{told} See `{command} --help`" if told.endswith("?") else f"{told}; see `{command} --help`"


def _named(args: list[str]) -> str:
    """The command that was meant: click does not say it where an option lacks its value."""
    import click  # noqa: PLC0415

    from orchestrator.cli.root import root  # noqa: PLC0415

    command: click.Command | None = root
    path = ["failout"]
    for word in args:
        if not isinstance(command, click.Group) or word not in command.list_commands(click.Context(command)):
            break
        command = command.get_command(click.Context(command), word)
        path.append(word)
    return " ".join(path)


def _say(line: str) -> None:
    sys.stderr.write(f"failout: {line}\n")


def _tell(error: FailoutError) -> None:
    line = str(error)
    if isinstance(error, Refused):
        where = f" for {error.zone}" if error.zone and error.zone not in error.reason else ""
        line = f"refused by {error.rule}{where}: {error.reason}"
    _say(" ".join(line.split()))
    if error.next_command:
        sys.stderr.write(f"next: {error.next_command}\n")
