"""`-h`, `--help` and `--version` of every command."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from importlib.metadata import version

import click
import pytest
from click.testing import CliRunner

PROGRAMS = {
    "mlalign-manifest": "mlalign.data_manifests.cli",
    "mlalign-extract": "mlalign.extract.cli",
    "mlalign-align": "mlalign.align.cli",
    "mlalign-evaluate": "mlalign.evaluate.cli",
    "mlalign-search": "mlalign.evaluate.search.cli",
}


def command_of(module: str) -> click.Command:
    command: click.Command = importlib.import_module(module).main
    return command


def paths(command: click.Command) -> Iterator[list[str]]:
    """The arguments that reach a command and each one below it."""
    yield []
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from ([name, *rest] for rest in paths(below))


@pytest.mark.parametrize(("program", "module"), PROGRAMS.items())
def test_version_is_that_of_the_installed_package(program: str, module: str) -> None:
    result = CliRunner().invoke(command_of(module), ["--version"], prog_name=program)
    assert (result.exit_code, result.stdout) == (0, f"{program} {version('mlalign')}\n")
    assert "--version" in CliRunner().invoke(command_of(module), ["--help"]).stdout


@pytest.mark.parametrize("module", PROGRAMS.values())
def test_h_is_help_everywhere(module: str) -> None:
    main = command_of(module)
    for path in paths(main):
        short, long = (CliRunner().invoke(main, [*path, flag]) for flag in ("-h", "--help"))
        assert short.exit_code == long.exit_code == 0
        assert short.stdout == long.stdout and "Usage:" in short.stdout
