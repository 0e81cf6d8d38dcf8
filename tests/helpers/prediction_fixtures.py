"""Official files of benchmarks, and the commands on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_fixtures import NUM_CLIPS, FakeStore, build, lines, moment
from click.testing import CliRunner

from mlalign.evaluate import evaluation
from mlalign.evaluate.cli import main
from mlalign.evaluate.inputs.protocols import load_protocol
from mlalign.evaluate.predictions import answers as predictor
from mlalign.evaluate.reports.results_json import results_json

Files = dict[str, str]


RNG = np.random.default_rng


def invoke(*arguments: object) -> str:
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    return done.stdout


class Benchmark:
    """A benchmark's files, its cache and the commands on it."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, folder: Path, card: str, files: Files, **shape: float
    ) -> None:
        self.card, self.folder, self.files = card, folder, folder / "files"
        manifest = build(card, files, folder)
        store = FakeStore(manifest, folder / "cache", **shape)
        for module in (evaluation, predictor):
            monkeypatch.setattr(
                module, "FeatureStore", type("Store", (), {"open": staticmethod(lambda _: store)})
            )

    def report(self, *run: str, annotations: bool = False, split: str | None = None) -> Any:
        """Task -> metric -> value of all queries by the last score (fused, or a task's).

        Without the page, whose figures take most of a command's time.
        """
        overrides = ["bootstrap_samples=20", "shown_neighbours=0"]
        overrides += [f"annotations={self.files}"] if annotations else []
        overrides += [f"split={split}"] if split else []
        cache = self.folder / "cache"
        config = load_protocol(lambda: evaluation.cache_record(cache), None, overrides)
        runs = [Path(name) for name in run if name != "--run"]
        content = results_json(evaluation.evaluate(cache, runs, config))
        assert content["card"]["name"] == self.card
        assert len(content["card"]["other_than_the_card"]) == (split is not None)
        found: dict[Any, Any] = {}
        for score in content["rows"][-1]["scores"]:
            name = score["task"] if score["subset"] is None else (score["task"], score["subset"])
            found[name] = {k: metric["value"] for k, metric in score["metrics"].items()}
        return found

    def predict(self, *more: object) -> Path:
        """The file of the predictions."""
        (path,) = invoke("predict", "cache", "-o", self.folder / "out", *more).splitlines()
        return Path(path)

    def score(self, dataset: str, path: Path, annotations: str = "", *more: object) -> Any:
        given = ["--predictions", path, "--annotations", self.files / annotations, "--json"]
        return json.loads(invoke("score", dataset, *given, *more))


def tvr_files() -> Files:
    rng = RNG(0)

    def records(show: str, first: int) -> str:
        return lines(
            [
                {"vid_name": f"{show}_{n % NUM_CLIPS:02}", "duration": 30, "ts": moment(rng)}
                | {"type": "v", "desc": f"She does {n}.", "desc_id": first + n}
                for n in range(3 * NUM_CLIPS)
            ]
        )

    return {
        "tvr_train_release.jsonl": records("friends", 1000),
        "tvr_val_release.jsonl": records("house", 2000),
    }


def highlight_files() -> Files:
    rng, records = RNG(1), []
    for qid in range(NUM_CLIPS):
        number = 1 + qid % 3
        cuts = np.sort(rng.choice(75, size=2 * number, replace=False)) * 2.0
        clips = sorted(rng.choice(75, size=10, replace=False).tolist())
        records.append(
            {"qid": 100 + qid, "query": f"thing {qid}", "duration": 150}
            | {"vid": f"vid{qid // 2}_60.0_210.0", "relevant_windows": cuts.reshape(-1, 2).tolist()}
            | {"relevant_clip_ids": clips}
            | {"saliency_scores": rng.integers(0, 5, size=(10, 3)).tolist()}
        )
    test = [
        {"qid": 900, "query": "unknown", "duration": 150, "vid": "hidden_0.0_150.0"},
    ]
    train = [{**records[0], "qid": 1, "vid": "train_0.0_150.0"}]
    return {
        "highlight_train_release.jsonl": lines(train),
        "highlight_val_release.jsonl": lines(records),
        "highlight_test_release.jsonl": lines(test),
    }


def activitynet_files() -> Files:
    rng = RNG(5)

    def split(name: str) -> str:
        return json.dumps(
            {
                f"v_{name}{n}": {
                    "duration": 30.0,
                    "timestamps": [moment(rng) for _ in range(3)],
                    "sentences": [f"He {n} {k}." for k in range(3)],
                }
                for n in range(NUM_CLIPS)
            }
        )

    return {"train.json": split("t"), "val_1.json": split("v"), "val_2.json": split("v")}


def next_qa_files() -> Files:
    types = ("CW", "CH", "TN", "TP", "TC", "DC", "DL", "DO")
    header = "video,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"

    def split(name: int) -> str:
        rng = RNG(name)
        return header + "".join(
            f"{name}{n % NUM_CLIPS:03},300,640,480,why {n},{rng.integers(5)},{n // NUM_CLIPS},"
            f"{types[n % 8]},a,b,c,d,e\n"
            for n in range(8 * NUM_CLIPS)
        )

    return {f"{s}.csv": split(n) for n, s in enumerate(("train", "val", "test"), start=1)}


def answers_files(card: str) -> Files:
    rng = RNG(10)
    words = ["man", "dog", "two", "red", "yes", "never in training"]
    found: Files = {}
    for k, split in enumerate(("train", "val", "test"), start=1):
        asked, answered = [], []
        for n in range(4 * NUM_CLIPS):
            answer = words[rng.integers(5 if split == "train" else 6)]
            first = ("who", "what", "how")[n % 3]
            if card == "activitynet-qa":
                name = {"question_id": f"v_{k}_{n}"}
                asked.append(
                    {"video_name": f"{k}_{n % NUM_CLIPS}", "question": f"{first} {n}"} | name
                )
                answered.append({"answer": answer, "type": n % 9} | name)
            else:
                record = {"answer": answer, "id": 1000 * k + n, "question": f"{first} {n}?"}
                record |= {"video_id": 100 * k + n % NUM_CLIPS}
                asked.append(record | ({"category_id": 3} if card == "msrvtt-qa" else {}))
        if card == "activitynet-qa":
            found |= {f"{split}_q.json": json.dumps(asked), f"{split}_a.json": json.dumps(answered)}
        else:
            found[f"{split}_qa.json"] = json.dumps(asked)
    return found


def msvd_files() -> Files:
    names = {split: [f"{split}{n}_1_9" for n in range(NUM_CLIPS)] for split in ("test", "val")}
    names["train"] = ["train0_1_9"]
    every = [name for several in names.values() for name in several]
    captions = {name: [f"{name} {k}" for k in range(1 + n % 5)] for n, name in enumerate(every)}
    lists = {f"{split}_list.txt": "\n".join(several) for split, several in names.items()}
    return {**lists, "captions_msvd.json": json.dumps(captions)}
