"""Segments learnt without any span, on procedural scenes cut blindly into eighths of a clip.

    python benchmarks/scenes_without_spans.py --out DIR

Uses the scenes of benchmarks/scenes_ablation.py in DIR when they are there. Two caches are made of
the same videos: one whose texts are the paragraphs (their sentences have no spans), one that has a
single caption of one sentence for each clip, the paragraph's sentences joined by commas. Rows: the
global level alone (pooled, from parts), the segment level alone, and the default; several seeds.
How often a sentence finds its right place is measured with the true spans, which no training has
seen. Steps whose result is there are not done again.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from scenes_ablation import step, train

RULE = "uniform:8"
POOLED = {"losses.weak_segment_weight": 0, "levels.global_from": "pooled"}
ROWS: dict[str, dict[str, dict[str, object]]] = {
    "paragraphs": {
        "global-pooled": POOLED,
        "global": {"losses.weak_segment_weight": 0},
        "segment": {"losses.global_weight": 0},
        "both": {},
    },
    "captions": {
        "global-pooled": POOLED,
        "both": {},
        "with-segments": {"losses.weak_segment_weight": 1},
    },
}
"""Settings of the rows of each dataset; `both` is the default."""
EPOCHS = 90


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="Folder for all that is made.")
    parser.add_argument("--clips", type=int, default=2500, help="default: 2500")
    parser.add_argument("--seeds", type=int, default=5, help="runs per row; default: 5")
    options = parser.parse_args()
    out: Path = options.out
    scenes = out / "scenes"
    step(scenes, "mlalign-manifest", "scenes", "-o", scenes, "--clips", options.clips)
    with_spans = out / "cache-with-spans"
    extract = ["--backbone", "tiny", "--fps", 2]
    step(with_spans, "mlalign-extract", scenes, "-o", with_spans, *extract, "--segments", RULE)
    for dataset in ROWS:
        table(dataset, out, scenes, with_spans, seeds=options.seeds)


def table(dataset: str, out: Path, scenes: Path, with_spans: Path, *, seeds: int) -> None:
    """Extract, train and evaluate one dataset."""
    manifest, cache = out / dataset, out / f"cache-{dataset}"
    if not manifest.exists():
        write_manifest(scenes, manifest, single=dataset == "captions")
    extract = ["mlalign-extract", scenes / "videos", "-o", cache, "--manifest", manifest]
    step(cache, *extract, "--backbone", "tiny", "--fps", 2, "--segments", RULE)
    sweep, folder = out / f"{dataset}.yaml", out / f"runs-{dataset}"
    runs = train(cache, sweep, folder, ROWS[dataset], seeds=seeds, epochs=EPOCHS)
    evaluate = ["mlalign-evaluate", cache, *runs, "--baseline", "both"]
    step(None, *evaluate, "-o", out / f"report-{dataset}")
    # The same runs on the same features beside the true spans: the places of the sentences.
    places = ["mlalign-evaluate", with_spans, *runs, "--baseline", "both"]
    step(None, *places, "-o", out / f"report-{dataset}-places")


def write_manifest(scenes: Path, manifest: Path, *, single: bool) -> None:
    """The scenes' dataset with texts of whole clips only: paragraphs, or one caption a clip."""
    manifest.mkdir()
    texts = pq.read_table(scenes / "texts.parquet")
    texts = texts.filter(pc.is_null(texts["start_seconds"]))
    if single:
        captions = pc.replace_substring(texts["text"], ". ", ", ")
        texts = texts.set_column(texts.schema.get_field_index("text"), "text", captions)
    pq.write_table(texts, manifest / "texts.parquet")
    shutil.copy(scenes / "clips.parquet", manifest)
    content = yaml.safe_load((scenes / "dataset.yaml").read_text())
    (manifest / "dataset.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


if __name__ == "__main__":
    main()
