"""The command line: parse, call, print, exit code. One file per command, imported when it is called."""

import importlib
import os
import sys
import traceback
from typing import Any

import click

from encsel.cli.annotation import annotate
from encsel.cli.interruption import Interruption
from encsel.errors import EncselError, UsageError
from encsel.progress import stderr_disarmed
from encsel.storage.streams import failure
from encsel.version import __version__

COMMANDS = {
    "demo": "Rank a made-up calibration set, to see what a ranking says.",
    "rank": "Rank every face-voice pair of encoders by predicted cross-modal EER.",
    "validate": "Measure everything: real error rates, geometry, and how they are related.",
    "embed": "Embed a calibration set once, so that it can be ranked many times.",
    "plan": "Show how many people a set needs, or what a set can decide.",
    "compare": "Show which pairs moved between two results by more than their uncertainty.",
    "schema": "Print the JSON Schema of a document.",
    "fit": "Fit a regression card from validations or a table of measured pairs.",
    "study": "Rebuild the tables and the analysis of the study behind encsel.",
    "calibrate": "Fit the calibrated cards on simulated populations and test them on others.",
    "encoders": "List the encoders, show or check one, or fetch its weights.",
    "cache": "Show where the embedding cache is and how much it holds, or purge it.",
    "help": "Show a page of the documentation.",
}
COMPLETION = "_ENCSEL_COMPLETE"
"""Environment variable of a shell's request for completions."""
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}
INTERNAL_ERROR = 70
"""Exit code of a bug in encsel, outside the table of exit codes: no job mistakes it for a verdict."""


class _Commands(click.Group):
    """A group that imports a command's file when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"encsel.cli.{name}")
        return getattr(module, name, None) or getattr(module, f"{name}_")  # `help` is a builtin

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

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (BrokenPipeError, EOFError) as error:
            # Streams of this process raise neither. click would exit as if a reader of stdout or a person had gone.
            raise RuntimeError("a pipe to another process broke, or a file ended early") from error


@click.group(cls=_Commands, context_settings=CONTEXT)
@click.version_option(__version__, message="encsel %(version)s")
@click.option("--no-config", is_flag=True, help="Do not read encsel.toml or pyproject.toml.")
@click.pass_context
def cli(ctx: click.Context, no_config: bool) -> None:
    """Which face encoder and which voice encoder match best, how well, and how certain is that?

    encsel ranks pairs of pretrained encoders by predicted cross-modal EER from a small calibration set: a few dozen
    people, each with face images and voice clips.

    \b
    Exit codes: 0 done; 1 gate failed; 2 usage; 3 calibration data insufficient or
    unreadable; 4 an encoder could not be loaded or run; 5 interrupted;
    6 gate inconclusive; 70 a bug in encsel.
    """
    if not no_config and ctx.invoked_subcommand in ("rank", "validate"):
        from pathlib import Path

        from encsel.cli.settings import defaults, settings

        name = ctx.invoked_subcommand
        command, found = cli.get_command(ctx, name), settings(Path())
        if command is not None and found is not None:
            click.echo(f"Settings: {found[0]}.", err=True)
            # Options on the command line win.
            ctx.default_map = {name: defaults(*found, command)}


@stderr_disarmed()
def run(interruption: Interruption | None = None) -> int:
    """The exit code of the command line `sys.argv`; every defined failure is one message on stderr.

    Raises:
        KeyboardInterrupt: `interruption` happened, whatever libraries made of it.
    """
    try:
        result = cli.main(standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except BaseException as error:
        if interruption is not None and interruption.happened:
            raise KeyboardInterrupt from error
        code = _reported(error)
    if interruption is not None and interruption.happened:
        raise KeyboardInterrupt
    sys.stdout.flush()
    if (lost := failure()) and code != INTERNAL_ERROR:
        from encsel.cli.output import unwritten

        return unwritten(
            UsageError(f"The result cannot be written to stdout: {lost.strerror}. Send it elsewhere."), code
        )
    return code


def _reported(error: BaseException) -> int:
    """Print what went wrong on stderr and return the exit code."""
    code = UsageError.exit_code
    match error:
        case KeyboardInterrupt():
            raise error
        case click.Abort() if isinstance(error.__cause__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        case click.exceptions.Exit():
            return error.exit_code
        # click exits this way after it has completed a word for a shell.
        case SystemExit() if os.environ.get(COMPLETION):
            raise error
        case click.ClickException():
            error.show()
            annotate(error.format_message(), code)
            return code
        case EncselError():
            message, code = str(error), error.exit_code
        case click.Abort():
            message = "Not confirmed; nothing was done. Pass --yes to skip the question."
        case SystemExit():
            message = f"Something called sys.exit({error.code!r}). This is a bug in encsel or in a plug-in."
            code = INTERNAL_ERROR
        case _ if isinstance(error, MemoryError) or "start new thread" in str(error):
            message = (
                "Out of memory. Give the job more memory, or reduce what it needs with --identities, "
                "--samples-per-identity or --batch-size."
            )
        case _:
            traceback.print_exception(error)
            message, code = "This is a bug in encsel; please report it with the lines above.", INTERNAL_ERROR
    click.echo(f"encsel: {message}", err=True)
    annotate(message, code)
    return code
