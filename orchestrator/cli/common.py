"""Options that every command has, and the ways to print."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.core.errors import NotFound, Rejected

if TYPE_CHECKING:
    from orchestrator.engine.glance import Glance

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
HOME = Path(".failout")


class Text(click.types.StringParamType):
    """A text that says something: what is around it is dropped, and nothing but blanks is no reason."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401
        told = super().convert(value, param, ctx).strip()
        if not told:
            self.fail("it is empty; say why, for whoever reads the records", param, ctx)
        return told


class Number(click.FloatRange):
    """A finite number: nan is in every range and inf never over."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number", param, ctx)
        return number


REASON = Text()


def options(command: F) -> F:
    """Add --json and --debug."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout (schemas/ in the repository).")
    @click.option("--debug", is_flag=True, help="Show tracebacks.")
    @functools.wraps(command)
    def with_options(*args: Any, debug: bool, **kwargs: Any) -> Any:  # noqa: ANN401 - read by main() too
        if not debug:
            _hush_libraries()
        return command(*args, **kwargs)

    return with_options  # type: ignore[return-value]


def _hush_libraries() -> None:
    """What fails in an SDK is told by the adapter that called it, in one line; --debug shows the SDK's own words."""
    import logging  # noqa: PLC0415

    logging.getLogger("azure").setLevel(logging.CRITICAL)


def config_option(command: F) -> F:
    return click.option(
        "-C",
        "--config",
        "config",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="FAILOUT_CONFIG",
        help="failout.yaml; default: the one here, else that of the only lab that is up.",
    )(command)


def find_config(given: Path | None) -> Path:
    """Return failout.yaml: given, here, or the only lab's. Raises NotFound with what to run next."""
    if given is not None:
        if not given.is_file():
            raise NotFound(f"there is no file {given}")
        return given
    here = Path("failout.yaml")
    if here.is_file():
        return here
    labs = sorted((HOME / "labs").glob("*/failout.yaml"))
    if len(labs) == 1:
        return labs[0]
    if labs:
        names = ", ".join(p.parent.name for p in labs)
        raise Rejected(f"several labs are up ({names}): name one with --config .failout/labs/NAME/failout.yaml")
    raise NotFound(
        "no failout.yaml here and no lab is up; `failout init` writes one, `failout lab up` raises a lab, --config names another"
    )


def glance(config: Path | None, look: Callable[[Glance, str], T], empty: Callable[[str], T] | None = None) -> T:
    """Read our own rows of the service; `empty` (or else NotFound) when nothing was deployed from here yet.

    No cloud is asked, and nothing is written.
    """
    from orchestrator.config import read_settings  # noqa: PLC0415
    from orchestrator.engine.glance import NoState, glance_at  # noqa: PLC0415
    from orchestrator.engine.place import Place  # noqa: PLC0415

    settings = read_settings(find_config(config))
    place = Place.of(settings.database or settings.state)
    try:
        with glance_at(place) as rows:
            return look(rows, settings.service)
    except NoState:
        if empty is None:
            raise
        return empty(settings.service)


def emit(data: object, *, as_json: bool, human: Callable[[], str]) -> None:
    """Print `data` as JSON or as people read it."""
    click.echo(json.dumps(data, indent=2) if as_json else human())


def author() -> str:
    """Who acts, for the records."""
    return os.environ.get("FAILOUT_AUTHOR") or os.environ.get("USER") or f"uid {os.getuid()}"


def table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """Left-aligned columns, two spaces apart; the last one may be long."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
    return "\n".join(lines)


def seconds(value: float) -> str:
    """93.4 -> '1 m 33 s'."""
    if value < 60:  # noqa: PLR2004
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} m {rest:02d} s"
