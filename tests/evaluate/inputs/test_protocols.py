"""A card's rules become settings; every number of a protocol agrees with a loop."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_fixtures import FakeStore, build, lines, moment, split_features
from click.testing import CliRunner
from prediction_fixtures import (
    Benchmark,
    activitynet_files,
    answers_files,
    highlight_files,
    msvd_files,
    next_qa_files,
    tvr_files,
)

from mlalign.data_manifests.cards.card import card_names, load_card
from mlalign.data_manifests.cards.scoring_rules import Vocabulary
from mlalign.data_manifests.core.errors import SettingsError, UserError
from mlalign.evaluate.cli import main
from mlalign.evaluate.config import EvaluationConfig, MomentConfig
from mlalign.evaluate.inputs.protocols import (
    card_of_cache,
    card_settings,
    load_protocol,
    scored_tasks,
    segments_note,
)
from mlalign.evaluate.scores.metrics import average_precisions, discounted_gains
from mlalign.evaluate.scores.ranks import ranks_of_correct
from mlalign.evaluate.scores.vectors import ZeroShot, embed
from mlalign.evaluate.statistics.aggregates import aggregate_intervals
from mlalign.evaluate.statistics.bootstrap import Bootstrap, Sample, mean_intervals
from mlalign.evaluate.tasks.corpus_moments import predict_in_corpus
from mlalign.evaluate.tasks.didemo_chunks import rank_runs
from mlalign.evaluate.tasks.highlights import mean_in_bins
from mlalign.evaluate.tasks.moments import moment_task, predict_moments
from mlalign.extract.cache.ragged import Ragged

RECORD = {"dataset": "msvd", "official": {"test": {"clips": 670}}}


# --- from a card to settings


@pytest.mark.parametrize("name", card_names())
def test_every_card_is_a_valid_evaluation_without_a_departure(name: str) -> None:
    config = load_protocol(dict, None, (), card=name)
    card = load_card(name)
    assert config.card == name and config.split == card.test_split
    assert scored_tasks(card)


def test_a_cache_of_a_benchmark_knows_its_card_and_others_have_none() -> None:
    assert card_of_cache(RECORD) == "msvd"
    assert card_of_cache({**RECORD, "dataset": "mine"}) is None
    assert card_of_cache({**RECORD, "official": {}}) is None  # a folder that is called msvd
    config = load_protocol(lambda: RECORD, None)
    assert (config.several_captions, config.median, config.validation_split) == (
        "clips",
        "lower",
        "val",
    )
    assert load_protocol(dict, None) == EvaluationConfig()


def test_what_the_user_sets_wins_over_the_card(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("median: mean\nmoments: {nms_iou: 0.9}\n")
    config = load_protocol(
        lambda: RECORD, tmp_path / "own.yaml", ["recall_ks=[1,50]"], card="charades-sta"
    )
    assert config.recall_ks == (1, 50) and config.median == "mean"
    assert config.moments.nms_iou == 0.9 and config.moments.iou_comparison == ">"
    assert load_protocol(lambda: RECORD, None, ["card=null"]).card is None
    assert load_protocol(lambda: RECORD, None, ["card=vatex"]).several_captions == "captions"


def test_the_settings_of_a_report_give_the_same_evaluation(tmp_path: Path) -> None:
    from mlalign.data_manifests.core.settings import save_settings

    config = load_protocol(lambda: RECORD, None, ["ties=mean"])
    save_settings(config, tmp_path / "config.yaml")
    assert load_protocol(dict, tmp_path / "config.yaml") == config


def test_an_unknown_card_and_a_wrong_setting_are_clear_errors() -> None:
    with pytest.raises(SettingsError, match="no card is called 'msvdd'"):
        load_protocol(dict, None, (), card="msvdd")
    with pytest.raises(SettingsError, match="nms_iou must be between 0 and 1"):
        load_protocol(lambda: RECORD, None, ["moments.nms_iou=2"])


def test_a_card_of_ones_own_is_given_as_its_file(tmp_path: Path) -> None:
    text = (Path(load_card.__globals__["CARDS"]) / "msvd.yaml").read_text()
    own = text.replace("name: msvd\n", "name: own\n").replace("median: lower", "ties: mean")
    (tmp_path / "own.yaml").write_text(own)
    config = load_protocol(dict, None, (), card=str(tmp_path / "own.yaml"))
    assert (config.ties, config.median, config.several_captions) == ("mean", "mean", "clips")
    assert card_settings(load_card(str(tmp_path / "own.yaml")))["split"] == "test"


# --- what the report says


@pytest.fixture
def in_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    return lambda card, files, **shape: Benchmark(monkeypatch, tmp_path, card, files, **shape)


def evaluate(*more: str) -> Any:
    fast = ["--set", "bootstrap_samples=20", "--set", "shown_neighbours=0"]
    return CliRunner().invoke(main, ["cache", *fast, *more])


def test_the_report_says_which_card_every_rule_and_published_numbers(in_folder, tmp_path) -> None:
    in_folder("msvd", msvd_files())
    out = tmp_path / "report"
    done = evaluate("-o", str(out), "--set", "ties=mean")
    assert done.exit_code == 0, done.output
    said = " ".join(done.stdout.split())
    for line in (
        "By the card msvd (",
        "text to clip, clip to text.",
        "clips ranked by their best caption",
        "median rank: the lower of the middle two",
        "Not the card's: ties is mean, the card has against.",
        "from memory, not checked",
        "rank at their mean",
    ):
        assert line in said, line
    content = json.loads((out / "results.json").read_text())["card"]
    assert content["name"] == "msvd" and content["tasks"] == ["text_to_clip", "clip_to_text"]
    assert content["other_than_the_card"] == ["ties is mean, the card has against"]
    assert {item["checked"] for item in content["references"]} == {True, False}
    page = (out / "report.html").read_text()
    assert "Scored by the card msvd" in page and "clips ranked by their best caption" in page
    assert "Rsum" in page and "geometric mean" in page


def test_a_card_that_asks_for_what_is_not_there_is_an_error(in_folder, tmp_path) -> None:
    in_folder("qvhighlights", highlight_files(), seconds=6.0, duration=150.0)
    done = evaluate("-o", str(tmp_path / "report"))
    assert done.exit_code == 2 and not (tmp_path / "report").exists()
    assert "the card qvhighlights asks for moments" in done.stderr
    assert "mlalign-evaluate predict" in done.stderr
    done = evaluate("-o", str(tmp_path / "report"), "--set", "card=next-qa")
    assert done.exit_code == 2 and "asks for multiple choice" in done.stderr


def test_annotations_that_do_not_fit_are_errors(in_folder, tmp_path) -> None:
    tvr = in_folder("tvr", tvr_files())
    done = evaluate("-o", str(tmp_path / "report"), "--annotations", str(tvr.files))
    assert done.exit_code == 2 and "leave --annotations out" in done.stderr
    no_card = ["--set", "card=null", "--set", "split=val"]
    done = evaluate("-o", str(tmp_path / "r"), "--annotations", str(tvr.files), *no_card)
    assert done.exit_code == 2 and "name one with --card" in done.stderr
    highlights = in_folder("qvhighlights", highlight_files(), seconds=6.0, duration=150.0)
    (highlights.files / "highlight_val_release.jsonl").unlink()
    done = evaluate(
        "-o", str(tmp_path / "r"), "--set", "split=val", "--annotations", str(highlights.files)
    )
    assert done.exit_code == 2 and "highlight_val_release.jsonl" in done.stderr


def test_groups_of_types_are_reported_beside_each_type(in_folder) -> None:
    found = in_folder("next-qa", next_qa_files()).report()
    of_types = [name[1] for name in found if isinstance(name, tuple)]
    assert of_types[-4:] == ["Acc@C", "Acc@T", "Acc@D", "TN (with TP)"]
    assert set(of_types[:-4]) == {"CW", "CH", "TN", "TP", "TC", "DC", "DL", "DO"}


def test_the_cards_vocabulary_and_what_it_covers_are_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from mlalign.evaluate.inputs.splits import vocabulary_counts

    manifest = build("activitynet-qa", answers_files("activitynet-qa"), tmp_path)
    questions = FakeStore(manifest, tmp_path).questions
    counts = vocabulary_counts(load_card("activitynet-qa"), questions, "test")
    outside = [
        row["answer"] == "never in training"
        for row in questions.to_pylist()
        if row["split"] == "test"
    ]
    assert counts == {
        "card_vocabulary": 5,
        "answers_outside_card_vocabulary": sum(outside),
        "questions_with_answers": len(outside),
    }
    assert vocabulary_counts(load_card("msvd"), questions, "test") == {}
    answers = ["a", "b", "a", "c", "b", "d"]
    assert Vocabulary(min_count=2).of(answers) == ["a", "b"]
    assert Vocabulary(most_frequent=3).of(answers) == ["a", "b", "c"]


# --- ranks and metrics


def loop_place(scores: np.ndarray, right: np.ndarray, item: int, ties: str) -> float:
    """0-based place among the wrong items, and the right ones that are better."""
    wrong = [k for k in range(len(scores)) if k not in right]
    above = sum(scores[k] > scores[item] for k in wrong)
    level = [k for k in wrong if scores[k] == scores[item]]
    extra = {
        "against": len(level),
        "mean": len(level) / 2,
        "first": sum(k < item for k in level),
    }
    return above + extra[ties]


@pytest.mark.parametrize("ties", ["against", "mean", "first"])
def test_ranks_under_each_tie_rule_agree_with_a_loop(ties: Any) -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 5, size=(40, 12)).astype(np.float32)
    truth = rng.integers(0, 12, size=40)
    found = ranks_of_correct(scores, Ragged.singles(truth), ties=ties)
    expected = [
        loop_place(row, np.array([item]), item, ties)
        for row, item in zip(scores, truth, strict=True)
    ]
    assert found.ranks.tolist() == expected and found.places is None
    assert found.tied.tolist() == [
        (row == row[item]).sum() > 1 for row, item in zip(scores, truth, strict=True)
    ]


@pytest.mark.parametrize("ties", ["against", "mean", "first"])
def test_every_right_item_has_its_place(ties: Any) -> None:
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 9, size=(30, 15)).astype(np.float32)
    lists = [rng.choice(15, size=rng.integers(1, 5), replace=False) for _ in range(30)]
    found = ranks_of_correct(scores, Ragged.of(lists), ties=ties)
    assert found.places is not None
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in lists])])
    for query, right in enumerate(lists):
        before = sorted(loop_place(scores[query], right, item, ties) for item in right)
        places = found.places[offsets[query] : offsets[query + 1]]
        assert places.tolist() == [wrong + number for number, wrong in enumerate(before)]
        level = (scores[query, right] == scores[query, right].max()).sum()
        assert found.ranks[query] == places[0] + ((level - 1) / 2 if ties == "mean" else 0)


def test_map_and_ndcg_of_several_right_items_agree_with_loops() -> None:
    rng = np.random.default_rng(2)
    lists = [np.sort(rng.choice(25, size=rng.integers(1, 14), replace=False)) for _ in range(20)]
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in lists])])
    places = np.concatenate(lists)
    precisions = average_precisions(places, offsets)
    gains = discounted_gains(places, offsets)
    for query, own in enumerate(lists):
        relevant = np.isin(np.arange(25), own)
        at = [relevant[: place + 1].mean() for place in own]
        assert precisions[query] == pytest.approx(np.mean(at))
        discounts = 1 / np.log2(np.arange(10) + 2)
        ideal = discounts[: len(own)].sum()
        assert gains[query] == pytest.approx((relevant[:10] * discounts).sum() / ideal)


def test_rsum_and_the_geometric_mean_are_resampled_with_both_directions_together() -> None:
    """A copy of a direction moves with it: Rsum's interval is twice that of its own sum."""
    rng = np.random.default_rng(3)
    recalls = np.sort(100.0 * (rng.random((50, 3)) < 0.4), axis=1)
    one = Sample(query_ids=[str(k) for k in range(50)], clusters=np.arange(50), values=recalls)
    bootstrap = Bootstrap(samples=200, confidence=0.9, seed=0)
    both = {"text_to_clip": one, "clip_to_text": one}
    found = aggregate_intervals(both, "text_to_clip", bootstrap)
    sums = Sample(
        query_ids=one.query_ids, clusters=one.clusters, values=recalls.sum(axis=1, keepdims=True)
    )
    (single,) = mean_intervals(sums, bootstrap)
    rsum = found["Rsum"]
    assert rsum.value == pytest.approx(2 * single.value)
    assert [rsum.low, rsum.high] == pytest.approx([2 * single.low, 2 * single.high])
    mean = found["geometric mean"]
    assert mean.value == pytest.approx(np.prod(recalls.mean(axis=0)) ** (1 / 3))
    assert mean.low < mean.value < mean.high
    alone = aggregate_intervals({"sentence_to_clip": one}, "sentence_to_clip", bootstrap)
    assert list(alone) == ["geometric mean"]


# --- moments


def moment_split(name: str, tmp_path: Path, *, files: Any, split: str, **shape: float) -> Any:
    manifest = build(name, files, tmp_path)
    return split_features(manifest, split, **shape)


@pytest.mark.parametrize("block_bytes", [1, 2**26])
def test_corpus_moments_are_those_of_brute_force_in_blocks_of_any_size(tmp_path, block_bytes):
    features = moment_split("tvr", tmp_path, files=tvr_files(), split="val")
    embeddings = embed(features, ZeroShot())
    config = EvaluationConfig(moments=MomentConfig(max_predictions=7, corpus_clips=4, corpus=True))
    texts = np.arange(10)
    found = predict_in_corpus(
        features,
        embeddings,
        ZeroShot(),
        texts=texts,
        weight=0.3,
        config=config,
        block_bytes=block_bytes,
    )
    for text, moments in zip(texts, found, strict=True):
        wholes = embeddings.clips @ embeddings.texts[text]
        cosines = embeddings.segments @ embeddings.sentences[text]
        bounds = features.segment_offsets
        best = [cosines[a:b].max() for a, b in zip(bounds, bounds[1:], strict=False)]
        chosen = np.argsort(-(0.3 * wholes + 0.7 * np.array(best)), kind="stable")[:4]
        every = [
            (0.3 * wholes[clip] + 0.7 * cosines[row], clip, row)
            for clip in chosen
            for row in range(bounds[clip], bounds[clip + 1])
        ]
        every.sort(key=lambda item: -item[0])
        assert moments.clips.tolist() == [clip for _, clip, _ in every[:7]]
        spans = [features.segment_spans[row].tolist() for *_, row in every[:7]]
        assert moments.moments[:, :2].tolist() == spans
        assert np.allclose(moments.moments[:, 2], [score for score, *_ in every[:7]], atol=1e-5)


def test_the_several_windows_of_a_query_are_one_query(tmp_path):
    features = moment_split(
        "qvhighlights", tmp_path, files=highlight_files(), split="val", seconds=6.0, duration=150.0
    )
    task = moment_task(features, MomentConfig())
    records = [
        json.loads(line) for line in highlight_files()["highlight_val_release.jsonl"].splitlines()
    ]
    windows = {str(record["qid"]): sorted(record["relevant_windows"]) for record in records}
    assert task is not None and set(task.queries.query_ids) == set(windows)
    for query, name in enumerate(task.queries.query_ids):
        assert sorted(task.spans(features, query).tolist()) == windows[name]


def test_suppressed_and_cut_predictions_are_the_first_that_do_not_overlap(tmp_path):
    features = moment_split("tvr", tmp_path, files=tvr_files(), split="val", seconds=3.0)
    spans = features.segment_spans.copy()
    spans[:, 0] = np.maximum(0, spans[:, 0] - 2.0)  # neighbours overlap
    features = dataclasses.replace(features, segment_spans=spans)
    embeddings = embed(features, ZeroShot())
    plain = MomentConfig(max_predictions=99)
    for text in range(5):
        every = predict_moments(features, embeddings, ZeroShot(), text=text, config=plain)
        some = predict_moments(
            features,
            embeddings,
            ZeroShot(),
            text=text,
            config=MomentConfig(nms_iou=0.2, max_predictions=3),
        )
        kept: list[list[float]] = []
        for start, end, score in every.tolist():
            ious = [
                max(0, min(end, e) - max(start, s)) / (max(end, e) - min(start, s))
                for s, e, _ in kept
            ]
            if all(iou <= 0.2 for iou in ious):
                kept.append([start, end, score])
        assert some.tolist() == kept[:3] and len(every) == 10


def test_chunks_beyond_the_clip_come_last_and_ties_in_order(tmp_path):
    records = [
        {"annotation_id": n, "description": f"it {n}", "video": f"1@N00_{n}_ab.mov"}
        | {"num_segments": 5, "times": [[0, 0]] * 4}
        for n in range(3)
    ]
    files = {f"{split}_data.json": json.dumps(records) for split in ("test",)}
    features = moment_split(
        "didemo-moments", tmp_path, files=files, split="test", seconds=5.0, duration=25.0
    )
    chunks = load_card("didemo-moments").moments.chunks
    assert chunks is not None and len(chunks.candidates()) == 21
    embeddings = embed(features, ZeroShot())
    for text in range(3):
        ranking = rank_runs(features, embeddings, ZeroShot(), text=text, chunks=chunks)
        assert sorted(ranking) == chunks.candidates()
        assert ranking[-6:] == [(i, 5) for i in range(6)]
        clip = features.text_clips[text]
        own = slice(*features.segment_offsets[clip : clip + 2])
        best = int((embeddings.segments[own] @ embeddings.sentences[text]).argmax())
        assert ranking[0] == (best, best)


def test_the_mean_in_bins_weighs_by_shared_seconds() -> None:
    spans = np.array([[0.0, 3.0], [3.0, 5.0]])
    values = np.array([1.0, 4.0])
    found = mean_in_bins(values, spans, seconds=2.0, number=4)
    assert found.tolist() == [1.0, 2.5, 4.0, 1.0]


# --- ids lead back


def test_ids_of_sentences_count_those_that_are_left_out(tmp_path):
    """So that VIDEO#K is the K-th sentence of the official file."""
    rng = np.random.default_rng(0)
    files = json.loads(activitynet_files()["train.json"])
    first = next(iter(files))
    files[first]["timestamps"][0] = [9.0, 9.0]
    files = {name: json.dumps(files) for name in ("train.json",)}
    manifest = build("activitynet-moments", files, tmp_path / "a")
    ids = manifest.texts["text_id"].to_pylist()
    assert f"{first}#0" not in ids and {f"{first}#1", f"{first}#2"} <= set(ids)
    spans = [moment(rng), [5.0, 5.0], moment(rng)]
    rows = [f"VID {start} {end}##x {k}." for k, (start, end) in enumerate(spans)]
    manifest = build("charades-sta", {"charades_sta_test.txt": "\n".join(rows)}, tmp_path / "c")
    assert manifest.texts["text_id"].to_pylist() == ["VID#0", "VID#2"]


def test_the_score_of_a_tvr_row_is_ignored_and_that_of_a_window_is_not(tmp_path):
    """TVR takes predictions in the file's order, QVHighlights sorts windows by their score."""
    truth = [{"desc_id": 1, "vid_name": "a", "type": "v", "ts": [0, 10]}]
    found = [{"desc_id": 1, "predictions": [[0, 20, 30, 0.1], [0, 0, 10, 0.9]]}]
    (tmp_path / "a.jsonl").write_text(lines(truth))
    content = {"video2idx": {"a": 0}, "SVMR": found}
    (tmp_path / "p.json").write_text(json.dumps(content))
    given = ["--predictions", str(tmp_path / "p.json"), "--annotations", str(tmp_path / "a.jsonl")]
    done = CliRunner().invoke(main, ["score", "tvr", *given, "--json"])
    assert json.loads(done.stdout)["SVMR"]["0.5-r1"] == 0
    query = {"qid": 1, "duration": 40, "relevant_windows": [[0, 10]], "relevant_clip_ids": []}
    windows = [[20, 30, 0.1], [0, 10, 0.9]]
    (tmp_path / "a.jsonl").write_text(lines([{**query, "saliency_scores": []}]))
    (tmp_path / "p.jsonl").write_text(lines([{"qid": 1, "pred_relevant_windows": windows}]))
    given[1] = str(tmp_path / "p.jsonl")
    done = CliRunner().invoke(main, ["score", "qvhighlights", *given, "--json"])
    assert json.loads(done.stdout)["brief"]["MR-full-mAP"] == 100


def test_a_cards_official_files_must_have_the_asked_split(tmp_path):
    from mlalign.evaluate.official.retrieval import card_owners

    files = msvd_files()
    (tmp_path / "files").mkdir()
    for name, text in files.items():
        (tmp_path / "files" / name).write_text(text)
    owners, videos = card_owners(load_card("msvd"), tmp_path / "files", "test")
    assert all(name.startswith("test") for name in videos) and set(owners.values()) == set(videos)
    with pytest.raises(UserError, match="no queries of split 'dev'"):
        card_owners(load_card("msvd"), tmp_path / "files", "dev")


def test_numbers_on_annotated_spans_say_so() -> None:
    assert "annotated spans" in (segments_note("spans") or "")
    assert segments_note("uniform:8") is None and segments_note(None) is None
