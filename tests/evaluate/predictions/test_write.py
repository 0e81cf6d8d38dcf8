"""Predictions written from a cache and scored on the official files give the report's numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmark_fixtures import DIM, NUM_CLIPS, FakeStore, lines, moment
from click.testing import CliRunner
from prediction_fixtures import (
    RNG,
    Benchmark,
    Files,
    activitynet_files,
    answers_files,
    highlight_files,
    invoke,
    msvd_files,
    next_qa_files,
    tvr_files,
)

from mlalign.align.config import RunConfig
from mlalign.align.head_config import HeadConfig, HeadsConfig
from mlalign.align.loss_config import TaskConfig
from mlalign.align.model.model import AlignmentModel, build_model
from mlalign.align.runs.checkpoint import Run
from mlalign.evaluate import evaluation
from mlalign.evaluate.cli import main
from mlalign.evaluate.predictions import answers as predictor

SIDES = ("start", "end")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Benchmark]:
    return lambda card, files, **shape: Benchmark(monkeypatch, tmp_path, card, files, **shape)


@pytest.fixture(params=["zero-shot", "moment head"])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of a run with a moment head that is not at its start, or of none."""
    if request.param == "zero-shot":
        return []
    config = RunConfig(
        heads=HeadsConfig(video=HeadConfig(name="residual")),
        tasks=TaskConfig(choice_weight=0, answer_weight=0, moment_weight=1),
    )
    torch.manual_seed(0)
    model = build_model(config, dim_video=DIM, dim_text=DIM).eval()
    rng = RNG(3)
    for parameter in model.parameters():
        parameter.data += 0.1 * parameter.data.new_tensor(rng.normal(size=tuple(parameter.shape)))
    use_run(monkeypatch, config, model)
    return ["--run", "run"]


def use_run(monkeypatch: pytest.MonkeyPatch, config: RunConfig, model: AlignmentModel) -> None:
    loaded = Run(
        path=Path("run"),
        config=config,
        model=model,
        cache_key=FakeStore.key,
        segment_rule="fixed",
        metrics={},
    )
    for module in (evaluation, predictor):
        monkeypatch.setattr(module, "load_run", lambda path: loaded)


# --- moments


def test_tvr_in_the_corpus_in_the_clip_and_of_clips(benchmark, run):
    tvr = benchmark("tvr", tvr_files())
    ours = tvr.report(*run)
    official = tvr.score("tvr", tvr.predict(*run), "tvr_val_release.jsonl")
    for task, name in (("moments", "SVMR"), ("corpus_moments", "VCMR")):
        for k in (1, 5, 10, 100):
            for threshold in (0.5, 0.7):
                found = round(ours[task][f"R@{k} IoU {threshold:g}"], 2)
                assert official[name][f"{threshold}-r{k}"] == found, (name, k, threshold)
    assert official["VR"] == {
        f"r{k}": round(ours["sentence_to_clip"][f"R@{k}"], 2) for k in (1, 5, 10, 100)
    }
    assert 0 < official["VCMR"]["0.5-r5"] < official["VCMR"]["0.5-r100"]
    assert 0 < official["VR"]["r1"] < 100


def test_qvhighlights_moments_and_highlights(benchmark, run):
    shape = {"seconds": 6.0, "duration": 150.0}
    highlights = benchmark("qvhighlights", highlight_files(), **shape)
    path = highlights.predict("--split", "val", *run)
    official = highlights.score("qvhighlights", path, "highlight_val_release.jsonl")["brief"]
    ours = highlights.report(*run, annotations=True, split="val")
    assert official["MR-full-mAP"] == round(ours["moments"]["mAP"], 2)
    assert official["MR-full-mAP@0.5"] == round(ours["moments"]["mAP@0.5"], 2)
    assert official["MR-full-mAP@0.75"] == round(ours["moments"]["mAP@0.75"], 2)
    for length in ("long", "middle", "short"):
        if f"{length}_moments" in ours:
            assert official[f"MR-{length}-mAP"] == round(ours[f"{length}_moments"]["mAP"], 2)
    for threshold in ("0.5", "0.7"):
        found = round(ours["moments"][f"R@1 IoU {threshold}"], 2)
        assert official[f"MR-full-R1@{threshold}"] == found
    for level in ("Fair", "Good", "VeryGood"):
        name = "" if level == "VeryGood" else f" {level}"
        assert official[f"HL-min-{level}-mAP"] == round(ours["highlights"][f"HL mAP{name}"], 2)
        assert official[f"HL-min-{level}-Hit1"] == round(ours["highlights"][f"HIT@1{name}"], 2)
    assert len({query for query in ours if str(query).endswith("_moments")}) >= 2


def test_a_split_without_known_answers_is_predicted(benchmark):
    path = benchmark("qvhighlights", highlight_files(), seconds=6.0, duration=150.0).predict()
    (record,) = map(json.loads, path.read_text().splitlines())
    assert (record["qid"], record["vid"]) == (900, "hidden_0.0_150.0")
    assert len(record["pred_saliency_scores"]) == 75 and len(record["pred_relevant_windows"]) == 10
    assert all(len(window) == 3 for window in record["pred_relevant_windows"])


def didemo_files() -> Files:
    rng = RNG(2)

    def records(first: int) -> str:
        return json.dumps(
            [
                {"annotation_id": first + n, "description": f"it {n}", "num_segments": 6}
                | {"video": f"{first}@N00_{n // 2}_ab.mov"}
                | {"times": np.sort(rng.integers(0, 6, size=(4 + n % 2, 2)), axis=1).tolist()}
                for n in range(2 * NUM_CLIPS)
            ]
        )

    return {
        f"{split}_data.json": records(100 * number)
        for number, split in enumerate(("train", "val", "test"), start=1)
    }


@pytest.mark.parametrize("seconds", [5.0, 4.0])
def test_didemo_by_all_annotators(benchmark, run, seconds):
    didemo = benchmark("didemo-moments", didemo_files(), seconds=seconds)
    ours = didemo.report(*run, annotations=True)["moments"]
    official = didemo.score("didemo", didemo.predict(*run), "test_data.json")
    assert official["rank@1"] == round(ours["Rank@1"] / 100, 6)
    assert official["rank@5"] == round(ours["Rank@5"] / 100, 6)
    assert official["mIoU"] == round(ours["mIoU"] / 100, 6)
    assert 0 < official["rank@5"] < 1


def charades_files() -> Files:
    rng = RNG(4)

    def split(name: str) -> str:
        rows = [
            f"{name}{n % NUM_CLIPS:03} {' '.join(map(str, moment(rng)))}##person {n}."
            for n in range(3 * NUM_CLIPS)
        ]
        return "\n".join(rows)

    return {"charades_sta_train.txt": split("A"), "charades_sta_test.txt": split("B")}


def tacos_files() -> Files:
    found = {}
    for number, split in enumerate(("train", "val", "test")):
        videos = json.loads(activitynet_files()["val_1.json"])
        for video in videos.values():
            times = video.pop("timestamps")
            video |= {"fps": 10.0, "num_frames": 300}
            video["timestamps"] = [[10 * start, 10 * end] for start, end in times]
        renamed = {f"s{number}-{name}.avi": video for name, video in videos.items()}
        found[f"{split}.json"] = json.dumps(renamed)
    return found


@pytest.mark.parametrize(
    ("card", "files", "annotations"),
    [
        ("charades-sta", charades_files, "charades_sta_test.txt"),
        ("activitynet-moments", activitynet_files, "val_2.json"),
        ("tacos", tacos_files, "test.json"),
    ],
)
def test_moments_of_the_2d_tan_family(benchmark, run, card, files, annotations):
    """Suppressed as the card says, both before and in the scorer."""
    moments = benchmark(card, files())
    ours = moments.report(*run)["moments"]
    path = moments.predict(*run)
    for nms in ([], ["--nms", "0.5"]):
        official = moments.score(card, path, annotations, *nms)
        shared = [name for name in official if name.replace(",IoU=", " IoU ") in ours]
        assert len(shared) >= 5
        for name in shared:
            assert official[name] == round(ours[name.replace(",IoU=", " IoU ")], 2), name
    assert 0 < official["R@5,IoU=0.3"] and official["mIoU"] < 100


# --- questions


def choice_record(rng: np.random.Generator, number: int, prefix: str) -> dict[str, Any]:
    options = {f"a{k}": f"option {number} {k}" for k in range(5)}
    return {
        "qid": number,
        "q": f"What {number}?",
        "vid_name": f"{prefix}{number % NUM_CLIPS}",
        "show_name": "S",
        "answer_idx": int(rng.integers(5)),
        **options,
    }


def test_next_qa_by_type_and_group(benchmark):
    next_qa = benchmark("next-qa", next_qa_files())
    ours = next_qa.report()
    path = next_qa.predict()
    official = next_qa.score("next-qa", path, "test.csv")
    assert official["Acc"] == round(ours["multiple_choice"]["accuracy"], 2)
    for group in "CTD":
        found = ours["multiple_choice", f"Acc@{group}"]["accuracy"]
        assert official[group] == round(found, 2)
    merged = ours["multiple_choice", "TN (with TP)"]["accuracy"]
    assert official["TN"] == round(merged, 2)
    assert merged != ours["multiple_choice", "TN"]["accuracy"]
    assert set(next(iter(json.loads(path.read_text()).values()))) == {"prediction", "answer"}


def tvqa_files(**names: str) -> Files:
    rng = RNG(6)
    return {
        file: lines([choice_record(rng, 100 * k + n, f"{k}_") for n in range(2 * NUM_CLIPS)])
        for k, file in enumerate(names.values(), start=1)
    }


def test_tvqa_accuracy(benchmark):
    names = {split: f"tvqa_{split}.jsonl" for split in ("train", "val")}
    tvqa = benchmark("tvqa", tvqa_files(**names))
    ours = tvqa.report()["multiple_choice"]
    official = tvqa.score("tvqa", tvqa.predict(), "tvqa_val.jsonl")
    assert official["Acc"] == round(ours["accuracy"], 2) and 20 < official["Acc"] < 100


def tvqa_plus_files() -> Files:
    rng, found = RNG(7), {}
    for k, split in enumerate(("train", "val", "test_public"), start=1):
        records = [choice_record(rng, 100 * k + n, f"{k}_") for n in range(2 * NUM_CLIPS)]
        for number, record in enumerate(records):
            record["answer_idx"] = str(record["answer_idx"])
            start = 2.0 * int(rng.integers(14))
            record |= {"ts": [start, start + 2.5 * (number % 7 > 0)], "bbox": {}}
            if split == "test_public":
                del record["answer_idx"], record["ts"]
        found[f"tvqa_plus_{split}.json"] = json.dumps(records)
    return found


def test_tvqa_plus_answers_their_moments_and_both(benchmark, run):
    plus = benchmark("tvqa-plus", tvqa_plus_files())
    ours = plus.report(*run)["multiple_choice"]
    official = plus.score("tvqa-plus", plus.predict(*run), "tvqa_plus_val.json")
    assert official["qa_acc"] == pytest.approx(ours["accuracy"] / 100)
    assert official["miou"] == pytest.approx(ours["mIoU"] / 100) and official["miou"] > 0
    assert official["ans_span_joint_acc@.5"] == pytest.approx(ours["ASA"] / 100)
    unknown = json.loads(plus.predict("--split", "test_public").read_text())["ts_answer"]
    assert len(unknown) == 2 * NUM_CLIPS


def test_vlep_with_the_documented_key(benchmark):
    rng = RNG(8)

    def split(first: int, **known: bool) -> str:
        return lines(
            [
                {"example_id": first + n, "vid_name": f"{first}_{n % NUM_CLIPS}", "ts": [1.0, 2.5]}
                | {"events": [f"one {n}", f"two {n}"]}
                | ({"answer": int(rng.integers(2))} if known else {})
                for n in range(2 * NUM_CLIPS)
            ]
        )

    files = {
        "vlep_train_release.jsonl": split(100, known=True),
        "vlep_dev_release.jsonl": split(200, known=True),
        "vlep_test_release.jsonl": split(300),
    }
    vlep = benchmark("vlep", files)
    ours = vlep.report()["multiple_choice"]
    official = vlep.score("vlep", vlep.predict(), "vlep_dev_release.jsonl")
    assert official["qa_acc"] == round(ours["accuracy"], 2)
    unknown = vlep.predict("--split", "test").read_text().splitlines()
    assert set(json.loads(unknown[0])) == {"example_id", "pred_ans"} and len(unknown) == 24


def test_violin_asks_each_statement_alone(benchmark):
    files = {
        "violin_annotation.json": json.dumps(
            {
                f"clip{n}": {"file": f"clip{n}", "split": ("train", "validate", "test")[n % 3]}
                | {"sub": [], "statement": [[f"true {n} {k}", f"false {n} {k}"] for k in range(3)]}
                for n in range(3 * NUM_CLIPS)
            }
        )
    }
    violin = benchmark("violin", files)
    ours = violin.report()["multiple_choice"]
    path = violin.predict()
    official = violin.score("violin", path, "violin_annotation.json", "--split", "test")
    assert official["Acc"] == round(ours["accuracy"], 2)
    assert len(json.loads(path.read_text())) == 6 * NUM_CLIPS


def test_msrvtt_choice(benchmark):
    rng = RNG(9)
    records = [
        {"qid": n, "clip_name": f"video{n}", "options": [f"cap {n} {k}" for k in range(5)]}
        | {"answer": int(rng.integers(5))}
        for n in range(30)
    ]
    choice = benchmark("msrvtt-mc", {"mc_test.jsonl": lines(records)})
    ours = choice.report()["multiple_choice"]
    official = choice.score("msrvtt-mc", choice.predict(), "mc_test.jsonl")
    assert official["Acc"] == round(ours["accuracy"], 2)


@pytest.fixture
def answering_run(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    config = RunConfig(
        heads=HeadsConfig(video=HeadConfig(name="residual")), tasks=TaskConfig(answer_weight=1.0)
    )
    known = ("man", "dog", "two", "red", "yes")
    torch.manual_seed(0)
    model = build_model(config, dim_video=DIM, dim_text=DIM, answers=known).eval()
    assert model.answer_features is not None
    model.answer_features += model.answer_features.new_tensor(RNG(11).normal(size=(5, DIM)))
    use_run(monkeypatch, config, model)
    return ["--run", "run"]


@pytest.mark.parametrize("card", ["msvd-qa", "msrvtt-qa", "activitynet-qa"])
def test_open_ended_answers_by_type_and_over_all_questions(benchmark, answering_run, card):
    asked = benchmark(card, answers_files(card))
    ours = asked.report(*answering_run)
    path = asked.predict(*answering_run)
    if card == "activitynet-qa":
        official = asked.score(card, path, "test_a.json")
        assert official["All"] == round(ours["answers"]["accuracy"] / 100, 4)
        assert official["Free"] == round(ours["answers", "Free"]["accuracy"] / 100, 4)
        assert official["Color"] == round(ours["answers", "color"]["accuracy"] / 100, 4)
        return
    official = asked.score(card, path, "test_qa.json")
    assert official["Acc"] == round(ours["answers"]["accuracy"], 2) and 0 < official["Acc"] < 100
    for word in ("who", "what", "how"):
        assert official[word] == round(ours["answers", word]["accuracy"], 2)


# --- retrieval


def msrvtt_files(**lists: str) -> Files:
    videos = [
        {"video_id": f"video{n}", "url": "", "category": 3, "start time": 1.0, "end time": 9.5}
        | {"split": ("train", "validate", "test")[n % 3], "id": n}
        for n in range(3 * NUM_CLIPS)
    ]
    captions = [
        {"caption": f"cat {n} {k}", "video_id": f"video{n}", "sen_id": 10 * n + k}
        for n in range(3 * NUM_CLIPS)
        for k in range(4)
    ]
    data = json.dumps({"info": {}, "videos": videos, "sentences": captions})
    return {"MSRVTT_data.json": data, **lists}


def given_files() -> Files:
    query = [f"ret{n},msr{n},video{3 * n + 2},a cat {n}\n" for n in range(NUM_CLIPS)]
    return msrvtt_files(
        **{
            "MSRVTT_train.9k.csv": "video_id\n" + "".join(f"video{3 * n}\n" for n in range(5)),
            "MSRVTT_JSFUSION_test.csv": "key,vid_key,video_id,sentence\n" + "".join(query),
        }
    )


@pytest.mark.parametrize(
    ("card", "files"),
    [
        ("msrvtt-full", msrvtt_files),
        ("msrvtt-1k-a-9k", given_files),
        ("msvd", msvd_files),
        ("didemo-paragraph", didemo_files),
        ("activitynet-paragraph", activitynet_files),
    ],
)
def test_a_similarity_matrix_gives_every_number_of_retrieval(benchmark, card, files):
    searched = benchmark(card, files())
    ours = searched.report()
    official = searched.score(card, searched.predict())
    for task, name in (("text_to_clip", "t2v"), ("clip_to_text", "v2t")):
        numbers = official[name]
        for metric in ("R@1", "R@5", "R@10", "MdR", "MnR", "geometric mean"):
            assert numbers[metric] == round(ours[task][metric], 2), (task, metric)
        assert numbers["MRR"] == round(ours[task]["MRR"], 4)
        assert 0 < numbers["R@1"] < 100
    assert official["Rsum"] == round(ours["text_to_clip"]["Rsum"], 2)
    assert ours["text_to_clip"]["Rsum"] == ours["clip_to_text"]["Rsum"]


def test_predictions_need_a_card(benchmark, tmp_path):
    searched = benchmark("msvd", msvd_files())
    done = CliRunner().invoke(
        main, ["predict", "cache", "-o", str(tmp_path / "p"), "--set", "card=null"]
    )
    assert done.exit_code == 2 and "name one with --card" in done.stderr
    assert searched.predict("--card", "msvd").name == "msvd_test.npz"


# --- a real cache


@pytest.mark.slow
def test_a_cache_extracted_by_a_card_is_scored_and_predicted_by_it(
    small_scenes, mlalign_extract, tmp_path, monkeypatch
):
    """Official files, videos, extract, evaluate, predict, score: nothing names the card again."""
    import pyarrow.parquet as pq

    from mlalign.data_manifests.cli import main as manifest
    from mlalign.extract.cache.store import FeatureStore

    texts = pq.read_table(small_scenes / "texts.parquet").to_pylist()
    records = [
        {"vid_name": row["clip_id"], "duration": 99, "ts": [row[f"{s}_seconds"] for s in SIDES]}
        | {"type": "v", "desc": row["text"], "desc_id": number}
        for number, row in enumerate(texts)
        if row["start_seconds"] is not None
    ]
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "tvr_val_release.jsonl").write_text(lines(records))
    monkeypatch.chdir(tmp_path)
    given = ["build", "tvr", "--annotations", "files", "--videos", str(small_scenes)]
    done = CliRunner().invoke(manifest, [*given, "-o", "manifest", "--partial"])
    assert done.exit_code == 0, done.output
    fast = ["--backbone", "tiny", "--workers", "1", "--set", "fps=2"]
    done = mlalign_extract("--manifest", "manifest", "-o", "cache", *fast)
    assert done.exit_code == 0, done.output
    assert FeatureStore.open(Path("cache")).segment_rules == ("fixed:1.5", "spans")
    for command in (["predict", "cache", "-o", "out"], ["cache", "-o", "report"]):
        done = CliRunner().invoke(main, [*command, "--set", "segment_rule=spans"])
        assert done.exit_code == 2 and "the segments by the rule spans are the true" in done.stderr
    content = json.loads(invoke("cache", "-o", "report", "--json"))
    (path,) = invoke("predict", "cache", "-o", "out").splitlines()
    assert path == "out/tvr_val.json"
    found = invoke("score", "tvr", "--predictions", path, "--annotations", "files", "--json")
    ours = {
        score["task"]: score["metrics"]
        for score in content["rows"][0]["scores"]
        if score["task"] in content["card"]["tasks"]
    }
    assert set(ours) == {"sentence_to_clip", "moments", "corpus_moments"}
    official = json.loads(found)
    assert official["VR"]["r1"] == round(ours["sentence_to_clip"]["R@1"]["value"], 2)
    for name, task in (("SVMR", "moments"), ("VCMR", "corpus_moments")):
        for k in (1, 5, 10):
            value = ours[task][f"R@{k} IoU 0.5"]["value"]
            assert official[name][f"0.5-r{k}"] == round(value, 2)


# --- what cannot be predicted


def refused(*arguments: object) -> str:
    done = CliRunner().invoke(main, ["predict", "cache", "-o", "out", *map(str, arguments)])
    assert done.exit_code == 2, done.output
    return done.stderr


def test_what_cannot_be_predicted_is_a_clear_error(benchmark, run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    benchmark("msvd-qa", answers_files("msvd-qa"))
    assert "by a run that was trained for it" in refused(*run)
    assert "has no split 'dev'" in refused("--split", "dev")
    assert "has no multiple-choice questions" in refused("--card", "next-qa")
    assert "has no texts" in refused("--card", "charades-sta")
    assert "has no texts of whole clips" in refused("--card", "vatex")
    assert "no card is called 'msvdqa'" in refused("--card", "msvdqa")
    bank = ("--set", "normalisations=[qb_norm]", "--split", "train")
    assert "qb_norm needs queries of another split" in refused(*bank)
    if run:
        monkeypatch.setattr(FakeStore, "key", "f" * 16)
        assert "was trained on a cache with key" in refused(*run)
    assert not (tmp_path / "out").exists()


def test_questions_of_other_than_the_card_s_options_are_refused(benchmark, monkeypatch, tmp_path):
    """Their file would be none that the benchmark's scorer takes."""
    monkeypatch.chdir(tmp_path)
    benchmark("next-qa", next_qa_files())
    said = refused("--card", "violin")
    assert "questions of violin have 2 options, and those of split 'test' up to 5" in said
    assert not (tmp_path / "out").exists()
