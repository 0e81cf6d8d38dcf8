"""What every command does alike: settings options, errors in a line with an exit code, its end."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from .errors import UserError

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])
Cmd = TypeVar("Cmd", bound=click.Command)


def command_errors(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a command: what a user can mend ends in "Error: ..." on stderr, not a traceback.

    UserError exits with its own exit code (2 unless it says otherwise), OSError (a full disk, a
    forbidden folder) with 1, Ctrl-C with 130.
    """

    @functools.wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            click.echo(f"Error: {error}", err=True)
            raise SystemExit(error.exit_code) from error
        except KeyboardInterrupt as error:
            click.echo("Interrupted.", err=True)
            raise SystemExit(130) from error
        except BrokenPipeError:
            raise  # click ends quietly when the reader of a pipe is gone
        except OSError as error:
            click.echo(f"Error: {error}", err=True)
            raise SystemExit(1) from error

    return command


class DefaultGroup(click.Group):
    """A group whose command `run` is meant when no other is named."""

    usage: str
    """What a call without a command looks like; set by the class that a group is made of."""
    own_options = ("-h", "--help", "--version")
    """Options of the group; all others are those of `run`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in self.own_options:
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, self.usage)
        formatter.write_usage(ctx.command_path, "COMMAND [ARGS]...")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.commands["run"].format_options(ctx, formatter)
        records = [param.get_help_record(ctx) for param in self.params]
        if records:  # --version
            with formatter.section("Options of all commands"):
                formatter.write_dl([record for record in records if record is not None])
        self.format_commands(ctx, formatter)


SPIN_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
"""Environment variables by which users set how long OpenMP's threads wait busily."""


def limit_spinning() -> None:
    """Let PyTorch's threads sleep after a short wait; to be called before PyTorch is imported.

    By default they wait busily for milliseconds, at every step of a training, and take the time
    from each other where a machine has other work. What a user has set stays.
    """
    if not any(name in os.environ for name in SPIN_VARIABLES):
        os.environ["GOMP_SPINCOUNT"] = "3000"  # benchmarks/busy_machine.py


def as_program(command: click.Command) -> Callable[[], None]:
    """The command as the entry point of an installed program.

    It ends the process at once: unloading PyTorch and what comes with it takes 1.1 s and 145 MiB
    more than any work before. What a command opens it closes itself, so nothing waits for that.
    """

    def program() -> None:
        _use_utf8()
        limit_spinning()
        _open_closed_streams()
        # A file name need not be text; what is printed of it then is an escape, not an error.
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        code: object = 0
        try:
            command_errors(command)()  # printing --help can fail, too
        except SystemExit as end:
            code = end.code
        with contextlib.suppress(BrokenPipeError):  # the reader of a pipe is gone
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)

    return program


def _use_utf8() -> None:
    """Start again in Python's UTF-8 mode where file names have another encoding.

    Manifests are UTF-8, and so are file names nearly everywhere; in the ASCII or Latin-1 encoding
    of an old locale a manifest could not name them. From Python 3.15 on this mode is the default.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "PYTHONUTF8": "1"})


def _open_closed_streams() -> None:
    """Open the standard streams that the caller closed (`>&-`) on the null device.

    Without one, Python has None for it, and the next file that is opened gets its number: what a
    library prints would end up in that file.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            assert opened == number, f"file {opened} was opened instead of {number}"
            setattr(sys, name, open(opened, mode, encoding="utf-8"))


def help_and_version(command: Cmd) -> Cmd:
    """Add `--version` to a command, and `-h` to it and to the commands below it."""
    click.version_option(package_name="mlalign", message="%(prog)s %(version)s")(command)
    _short_help(command)
    return command


def _short_help(command: click.Command) -> None:
    command.context_settings.setdefault("help_option_names", ["-h", "--help"])
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _short_help(below)


def config_options(function: F) -> F:
    """Add `--config FILE` (argument `config`) and `--set KEY=VALUE` (argument `overrides`)."""
    config = click.option(
        "--config",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="Settings in YAML; what it leaves out keeps its default.",
    )
    overrides = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="One setting, such as group.name=3; wins over --config. Repeatable.",
    )
    return config(overrides(function))
