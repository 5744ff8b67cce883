"""The command line: parse, call, print, exit code. One file per command, imported when it is called."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import TYPE_CHECKING

import click

from encsel.cli.interruption import Interruption
from encsel.errors import EncselError, UsageError
from encsel.version import __version__

if TYPE_CHECKING:
    from encsel.cli.settings import Option

COMMANDS = {
    "demo": "Write a small procedural calibration set and rank the classical encoders on it.",
    "rank": "Rank every face-voice pair of encoders by predicted cross-modal EER.",
    "validate": "Measure everything: real error rates, geometry, what goes with what.",
    "embed": "Embed a calibration set once, to be ranked many times.",
    "plan": "Tell how many people a set needs, or what a set can decide.",
    "compare": "Tell which pairs moved between two results, against their uncertainty.",
    "schema": "Print the JSON Schema of a document.",
    "fit": "Fit a regression card from validations or a table of measured pairs.",
    "study": "Rebuild the tables and the analysis of the study that encsel grows out of.",
    "calibrate": "Make the calibrated cards: simulate, fit, test on populations kept out.",
    "encoders": "List the encoders, or show one.",
    "cache": "Show where the embedding cache is and how much it holds, or purge it.",
}
COMPLETION = "_ENCSEL_COMPLETE"
"""Variable by which a shell asks for completion."""
INTERNAL_ERROR = 70
"""Exit code of a bug in encsel: no code of the table, so that no gate mistakes it for a verdict."""


class _Commands(click.Group):
    """Knows the commands by name and loads a command's file only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return getattr(importlib.import_module(f"encsel.cli.{name}"), name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from encsel.errors import nearest

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"No command {args[0]!r}. {nearest(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="encsel %(version)s")
@click.option("--no-config", is_flag=True, help="Do not read encsel.toml or pyproject.toml.")
@click.pass_context
def cli(ctx: click.Context, no_config: bool) -> None:
    """Which face encoder and which voice encoder match best, how well, and how sure is that?

    encsel ranks pairs of pretrained encoders by predicted cross-modal EER from a small calibration set: some dozens of
    people, each with face images and voice clips.

    \b
    Exit codes: 0 done; 1 gate failed; 2 usage; 3 calibration data insufficient or
    unreadable; 4 an encoder could not be loaded or run; 5 interrupted;
    6 gate inconclusive; 70 a bug in encsel.
    """
    if not no_config and ctx.invoked_subcommand in ("rank", "validate"):
        _read_config(ctx, ctx.invoked_subcommand)


def _read_config(ctx: click.Context, name: str) -> None:
    """Settings of the folder's file as defaults of a command: what is given on the command line wins."""
    from pathlib import Path

    from encsel.cli import settings as config

    found = config.settings(Path())
    if found is None:
        return
    command = cli.get_command(ctx, name)
    assert command is not None
    ctx.default_map = {name: config.defaults(*found, name, known_settings(command))}


def known_settings(command: click.Command) -> dict[str, Option]:
    """What may stand in a file of settings for a command, by name."""
    from encsel.cli.settings import Option

    known = {"data": Option("data")}
    for one in command.params:
        if isinstance(one, click.Option):
            stands_for = one.flag_value if isinstance(one.flag_value, str) else True
            option = Option(str(one.name), "texts" if one.multiple else "flag" if one.is_flag else "value", stands_for)
            known |= {text[2:]: option for text in one.opts if text.startswith("--")}
    return known


def run(interruption: Interruption | None = None) -> int:
    """The exit code of the command line `sys.argv`; every defined failure is one message on stderr.

    Raises:
        KeyboardInterrupt: `interruption`, whatever became of that on its way through libraries.
    """
    try:
        code = cli.main(standalone_mode=False)
        sys.stdout.flush()
    except BaseException as error:
        if interruption is not None and interruption.happened:
            raise KeyboardInterrupt from error
        return _reported(error)
    if interruption is not None and interruption.happened:
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _reported(error: BaseException) -> int:
    """Say what went wrong; the exit code."""
    match error:
        case EncselError():
            return _said(str(error), error.exit_code)
        case click.exceptions.Exit():
            return error.exit_code
        case KeyboardInterrupt():
            raise error
        case click.Abort():
            if isinstance(error.__cause__, KeyboardInterrupt):
                raise KeyboardInterrupt from error
            return _said(
                "No answer was given; nothing was done. Say --yes where nobody can answer.", UsageError.exit_code
            )
        case click.ClickException():
            error.show()
            return 2
        case SystemExit():
            if COMPLETION in os.environ:  # click ends so when it has told a shell how to complete
                raise error
            # click ends so when the reader of stdout went away (`| head`), having put a wrapper around stdout.
            if "Pacify" in type(sys.stdout).__name__:
                return 0
            return _said(
                f"Something called sys.exit({error.code!r}). This is a bug in encsel or in a plug-in.", INTERNAL_ERROR
            )
        case _ if isinstance(error, MemoryError) or "start new thread" in str(error):
            return _said(
                "The memory is used up. Give the job more, or let it take less: --identities, --samples-per-identity, "
                "--batch-size.", UsageError.exit_code
            )  # fmt: skip
    traceback.print_exception(error)
    return _said("This is a bug in encsel; please report it with the lines above.", INTERNAL_ERROR)


def _said(message: str, code: int) -> int:
    click.echo(f"encsel: {message}", err=True)
    return code
