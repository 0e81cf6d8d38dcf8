"""mlalign-extract: videos and texts into a feature cache."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..data_manifests.command_line import command_errors, config_options

if TYPE_CHECKING:
    from ..data_manifests.schema import Manifest


class _DefaultGroup(click.Group):
    """A group whose first command is meant when no other is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "VIDEOS... -o CACHE [OPTIONS]")
        formatter.write_usage(ctx.command_path, "COMMAND [ARGS]...")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.commands["run"].format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


@click.group(cls=_DefaultGroup)
def main() -> None:
    """Extract frozen-backbone features of VIDEOS into a cache, and look after caches.

    VIDEOS are folders, files, a list (.txt), a table of videos and texts (.csv, .jsonl) or a
    manifest folder. Running again does what is new or changed; a killed run is finished by the
    same command. A folder that is called like one of the commands below is written ./status.

    Exit code: 0 done, 1 a clip failed, 2 wrong usage.
    """


@main.command(context_settings={"show_default": True})
@click.argument("videos", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "-o", "cache", required=True, type=click.Path(path_type=Path), help="The cache folder."
)
@click.option(
    "--manifest",
    "manifest_path",
    type=click.Path(path_type=Path),
    help="A dataset's manifest; VIDEOS is then the folder that its video paths start from.",
)
@click.option("--backbone", help="An open_clip model, or tiny (small, random weights).")
@click.option("--pretrained", help="A pretrained tag of the model, or a checkpoint file.")
@click.option("--fps", type=float, help="Frames sampled per second.  [default: 1]")
@click.option(
    "--segments",
    multiple=True,
    metavar="RULE",
    help="uniform:N, fixed:SECONDS or spans (of the manifest's texts). Repeatable.",
)
@click.option("--device", help="auto, cpu, cuda, cuda:1 ...")
@click.option("--workers", type=int, help="Decoding processes.  [default: one per core]")
@click.option("--retry-failed", is_flag=True, help="Try again what failed in an earlier run.")
@click.option("--allow-failures", is_flag=True, help="Exit with 0 although clips failed.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@config_options
@command_errors
def run(
    videos: tuple[Path, ...],
    cache: Path,
    manifest_path: Path | None,
    segments: tuple[str, ...],
    retry_failed: bool,
    allow_failures: bool,
    as_json: bool,
    config: Path | None,
    overrides: tuple[str, ...],
    **flags: str | float | None,
) -> None:
    """What VIDEOS... -o CACHE does; the word "run" may be left out."""
    manifest = _read(videos, manifest_path)
    from ..data_manifests.settings import load_settings
    from .config import ExtractConfig

    typed = [f"{name}={value}" for name, value in flags.items() if value is not None]
    if segments:
        typed.append(f"segments={json.dumps(list(segments))}")
    settings = load_settings(ExtractConfig, config, (*overrides, *typed))

    from .pipeline import extract

    summary = extract(manifest, cache, settings, retry_failed=retry_failed)
    click.echo(json.dumps(asdict(summary)) if as_json else summary.line())
    if summary.clips["failed"] and not allow_failures:
        raise SystemExit(1)


def _read(videos: tuple[Path, ...], manifest_path: Path | None) -> Manifest:
    """The dataset that the arguments name."""
    from ..data_manifests.reader import combine, read_manifest

    if manifest_path is not None:
        if len(videos) > 1:
            raise click.UsageError("with --manifest, VIDEOS is one folder: its videos root")
        return read_manifest(manifest_path, videos_root=videos[0] if videos else None)
    if not videos:
        raise click.UsageError("say which VIDEOS (a folder, files, a list), or give --manifest")
    return combine([read_manifest(path) for path in videos])
