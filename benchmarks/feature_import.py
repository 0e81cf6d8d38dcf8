"""Seconds to import and export features of MSR-VTT's size: 10,000 clips of 12 rows, 512 wide.

With 200,000 text features for the HDF5 case, 20 a clip. The seconds of a run are those of the whole
command; "again" is the same command on the finished cache.

    python benchmarks/feature_import.py --out DIR
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import time
from pathlib import Path

import h5py
import numpy as np

NUM_CLIPS, NUM_ROWS, WIDTH, TEXTS_PER_CLIP = 10_000, 12, 512, 20
FORMATS = ("npy", "npz", "webdataset", "hdf5")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    out = parser.parse_args().out
    out.mkdir(parents=True)
    manifest, source, texts = write_dataset(out)
    rate = ("--manifest", manifest, "--fps", "1")
    first = out / "cache"
    seconds = timed("mlalign-extract", "import", source, "-o", first, *rate, "--texts", texts)
    num_texts = NUM_CLIPS * TEXTS_PER_CLIP
    print(f"hdf5 with {num_texts} texts: import {seconds:.1f} s")
    again = timed("mlalign-extract", "import", source, "-o", first, *rate, "--texts", texts)
    print(f"hdf5 with {num_texts} texts: again {again:.1f} s")
    (out / "bare").mkdir()
    bare = out / "bare" / "cache"
    timed("mlalign-extract", "import", source, "-o", bare, *rate)
    for form in FORMATS:
        written, cache = out / form, out / f"cache-{form}"
        exported = timed("mlalign-extract", "export", bare, "-o", written, "--format", form)
        video = written / ("video.h5" if form == "hdf5" else "video")
        command = ("mlalign-extract", "import", video, "-o", cache, *rate)
        imported, again = timed(*command), timed(*command)
        print(f"{form:11} export {exported:5.1f} s, import {imported:5.1f} s, again {again:5.1f} s")
        shutil.rmtree(written)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"largest process: {peak:.0f} MiB")


def write_dataset(out: Path) -> tuple[Path, Path, Path]:
    """A manifest, features of its videos and features of its texts."""
    rng = np.random.default_rng(0)
    names = [f"video{number}" for number in range(NUM_CLIPS)]
    manifest = out / "manifest"
    manifest.mkdir()
    clips = [{"clip_id": name, "video_path": f"{name}.mp4", "split": "train"} for name in names]
    texts = [
        {"text_id": f"{name}-{i}", "clip_id": name, "kind": "caption", "text": "words"}
        for name in names
        for i in range(TEXTS_PER_CLIP)
    ]
    for table, rows in (("clips", clips), ("texts", texts)):
        lines = "".join(f"{json.dumps({'split': 'train', **row})}\n" for row in rows)
        (manifest / f"{table}.jsonl").write_text(lines)
    with h5py.File(out / "video.h5", "w") as file:
        for name in names:
            file[name] = rng.normal(size=(NUM_ROWS, WIDTH)).astype(np.float16)
    with h5py.File(out / "text.h5", "w") as file:
        for row in texts:
            file[row["text_id"]] = rng.normal(size=(1, WIDTH)).astype(np.float16)
    return manifest, out / "video.h5", out / "text.h5"


def timed(*command: object) -> float:
    start = time.perf_counter()
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
