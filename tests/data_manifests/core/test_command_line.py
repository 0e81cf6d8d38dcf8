"""The edges of every command: exit codes, one-line errors, settings options."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from mlalign.data_manifests.core.command_line import (
    command_errors,
    config_options,
    limit_spinning,
)
from mlalign.data_manifests.core.errors import ManifestError, UserError


class Failed(UserError):
    exit_code = 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UserError("mend it"), 2, "Error: mend it\n"),
        (ManifestError("two\n  lines"), 2, "Error: two\n  lines\n"),
        (Failed("one failed"), 1, "Error: one failed\n"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
        (OSError(28, "No space left on device"), 1, "Error: [Errno 28] No space left on device\n"),
    ],
)
def test_an_error_is_one_message_and_an_exit_code(
    error: BaseException, code: int, said: str
) -> None:
    @click.command()
    @command_errors
    def command() -> None:
        raise error

    result = CliRunner().invoke(command)
    assert result.exit_code == code
    assert result.stderr == said
    assert result.stdout == ""


def test_our_own_mistakes_keep_their_traceback() -> None:
    @click.command()
    @command_errors
    def command() -> None:
        raise ZeroDivisionError

    assert isinstance(CliRunner().invoke(command).exception, ZeroDivisionError)


def test_settings_options_arrive_as_path_and_tuple(tmp_path: Path) -> None:
    @click.command()
    @config_options
    @command_errors
    def command(config: Path | None, overrides: tuple[str, ...]) -> None:
        click.echo(f"{config and config.name} {overrides}")

    (tmp_path / "c.yaml").touch()
    arguments = ["--config", str(tmp_path / "c.yaml"), "--set", "a=1", "--set", "b.c=2"]
    assert CliRunner().invoke(command, arguments).output == "c.yaml ('a=1', 'b.c=2')\n"
    assert CliRunner().invoke(command, []).output == "None ()\n"
    missing = CliRunner().invoke(command, ["--config", str(tmp_path / "none.yaml")])
    assert missing.exit_code == 2


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("click.echo('done')", 0, "done\n"),
        ("print('half', end=''); raise SystemExit(3)", 3, "half"),
        ("raise SystemExit('why')", 1, ""),
    ],
)
def test_a_program_ends_at_once_with_its_code_and_all_it_said(
    body: str, code: int, said: str
) -> None:
    """Without the handlers that run at an ordinary exit."""
    script = (
        "import atexit, click\n"
        "from mlalign.data_manifests.core.command_line import as_program\n"
        "atexit.register(lambda: print('handled'))\n"
        "@click.command()\n"
        f"def command():\n    {body}\n"
        "as_program(command)()\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, said)


def test_a_program_shows_our_own_mistakes() -> None:
    script = (
        "from mlalign.data_manifests.core.command_line import as_program\n"
        "as_program(lambda: 1 / 0)()\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize(
    ("set_by_user", "expected"),
    [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_wait_busily_for_a_short_time_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, set_by_user: dict[str, str], expected: str | None
) -> None:
    monkeypatch.setattr(os, "environ", dict(set_by_user))
    limit_spinning()
    assert os.environ.get("GOMP_SPINCOUNT") == expected


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
def test_a_full_disk_under_the_output_is_one_line_also_for_help() -> None:
    script = (
        "import click\n"
        "from mlalign.data_manifests.core.command_line import as_program\n"
        "as_program(click.Command('x', help='text'))()\n"
    )
    command = [sys.executable, "-P", "-c", script, "--help"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "Error: [Errno 28] No space left on device\n")


def test_a_program_runs_with_its_standard_streams_closed(tmp_path: Path) -> None:
    """And what it opens does not take their place."""
    script = (
        "import os, sys\n"
        "from mlalign.data_manifests.core.command_line import as_program\n"
        "def command():\n"
        "    with open('file', 'w') as file:\n"
        "        print('printed')\n"
        "        os.write(1, b'printed by a library')\n"
        "        file.write(sys.stdin.read() + 'written')\n"
        "as_program(command)()\n"
    )
    (tmp_path / "script.py").write_text(script)
    line = f"exec '{sys.executable}' -P script.py <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", line], cwd=tmp_path).returncode == 0
    assert (tmp_path / "file").read_text() == "written"


def test_file_names_are_utf8_in_any_locale(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from mlalign.data_manifests.core.command_line import as_program\n"
        "as_program(lambda: open('v\u00eddeo', 'w').write(ascii(sys.argv[1])))()\n"
    )
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    ascii_names = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-P", "script.py", "caf\u00e9"]
    subprocess.run(command, cwd=tmp_path, env={**os.environ, **ascii_names}, check=True)
    assert (tmp_path / "v\u00eddeo").read_text() == r"'caf\xe9'"
