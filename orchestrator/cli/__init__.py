"""The command line. Nothing heavy is imported here: `failout --help` answers at once."""

from __future__ import annotations

import os
import sys
import traceback

from orchestrator.core.errors import FailoutError, Refused


def main() -> None:
    """Run the command line and end with a documented exit code (docs/exit-codes.md)."""
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    import click  # noqa: PLC0415 - measured: half of the start-up time

    from orchestrator.cli.root import root  # noqa: PLC0415

    debug = "--debug" in args
    try:
        result = root.main(args=args, prog_name="failout", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("\nfailout: interrupted\n")
        return 130
    except BrokenPipeError:
        # Whoever read our output is gone; say nothing, and do not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except FailoutError as error:
        if debug:
            traceback.print_exc()
        _tell(error)
        return error.exit_code
    except Exception as error:
        if debug:
            raise
        sys.stderr.write(f"failout: unexpected {type(error).__name__}: {error}; run it again with --debug\n")
        return 1


def _tell(error: FailoutError) -> None:
    line = str(error)
    if isinstance(error, Refused):
        where = f" for {error.zone}" if error.zone and error.zone not in error.reason else ""
        line = f"refused by {error.rule}{where}: {error.reason}"
    sys.stderr.write(f"failout: {line}\n")
    if isinstance(error, Refused) and error.next_command:
        sys.stderr.write(f"next: {error.next_command}\n")
