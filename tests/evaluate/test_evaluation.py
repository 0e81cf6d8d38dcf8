"""Scores, tasks and rows on synthetic splits; the report and the command on top of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner, Result

from mlalign.align.config import RunConfig
from mlalign.align.head_config import HeadConfig, HeadsConfig
from mlalign.align.model.model import AlignmentModel, build_model
from mlalign.align.runs.checkpoint import Run, RunError
from mlalign.data_manifests.core.errors import UserError
from mlalign.evaluate import evaluation
from mlalign.evaluate.cli import main
from mlalign.evaluate.config import EvaluationConfig, SegmentScoreConfig
from mlalign.evaluate.inputs.rows import table_rows
from mlalign.evaluate.inputs.splits import with_segment_rule
from mlalign.evaluate.scores.similarity import pool_segments
from mlalign.evaluate.scores.vectors import ZeroShot, embed
from mlalign.evaluate.tasks.choices import choice_task, score_choices
from mlalign.evaluate.tasks.grounding import grounding_task, score_grounding
from mlalign.evaluate.tasks.registry import count_items, find_tasks, score_tasks
from mlalign.evaluate.tasks.retrieval import choose_fused_weight, retrieval_tasks
from mlalign.extract.cache.split_features import QuestionFeatures, SplitFeatures, sentences_of_texts

KEY = "0123456789abcdef"
NO_SPAN = (np.nan, np.nan)
Option = Sequence[float]


def questions(
    width: int,
    asked: Sequence[tuple[int, int, Sequence[Option]]] = (),
    *,
    types: Sequence[str | None] = (),
    open_ended: int = 0,
) -> QuestionFeatures:
    """asked: (clip, answer, options' features) of the multiple-choice questions."""
    num = len(asked) + open_ended
    options = [option for _, _, several in asked for option in several]
    counts = [len(several) for _, _, several in asked] + [0] * open_ended
    return QuestionFeatures(
        question_ids=[f"q{k}" for k in range(num)],
        kinds=["multiple_choice"] * len(asked) + ["open_ended"] * open_ended,
        types=list(types) or [None] * num,
        clips=np.array([clip for clip, _, _ in asked] + [0] * open_ended, dtype=np.int64),
        spans=np.full((num, 2), np.nan),
        questions=["what?"] * num,
        answers=[None] * num,
        answer_indices=np.array([a for _, a, _ in asked] + [-1] * open_ended, dtype=np.int64),
        question_features=np.zeros((num, width), dtype=np.float32),
        option_features=np.array(options, dtype=np.float32).reshape(-1, width),
        option_offsets=np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
    )


def split(
    clips: Sequence[Sequence[Sequence[float]]],
    texts: Sequence[tuple[str, int, Sequence[float], tuple[float, float]]],
    *,
    asked: QuestionFeatures | None = None,
    name: str = "test",
) -> SplitFeatures:
    """clips: the features of each clip's segments, a second long each; the clip has their mean.

    texts: (words, clip, feature, span).
    """
    segments = np.array([segment for clip in clips for segment in clip], dtype=np.float32)
    counts = [len(clip) for clip in clips]
    starts = np.concatenate([np.arange(count) for count in counts]).astype(np.float64)
    return SplitFeatures(
        cache_key=KEY,
        split=name,
        segment_rule="spans",
        clip_ids=[f"clip{i}" for i in range(len(clips))],
        clip_features=np.array([np.mean(clip, axis=0) for clip in clips], dtype=np.float32),
        clip_durations=np.array(counts, dtype=np.float64),
        segment_features=segments,
        segment_offsets=np.concatenate([[0], np.cumsum(counts)]),
        segment_spans=np.stack([starts, starts + 1], axis=1),
        text_ids=[f"text{i}" for i in range(len(texts))],
        texts=[words for words, *_ in texts],
        text_features=np.array([feature for _, _, feature, _ in texts], dtype=np.float32).reshape(
            len(texts), segments.shape[1]
        ),
        text_clips=np.array([clip for _, clip, _, _ in texts], dtype=np.int64),
        text_spans=np.array([span for *_, span in texts], dtype=np.float64).reshape(-1, 2),
        num_failed_clips=1,
        questions=asked or questions(segments.shape[1]),
    )


def random_split(
    seed: int, num: int, *, noise: float = 0.7, width: int = 16, name: str = "test"
) -> SplitFeatures:
    """Clips of 2 to 4 segments, a noisy sentence for each, their paragraph, and a question."""
    rng = np.random.default_rng(seed)
    clips = [rng.normal(size=(count, width)) for count in rng.integers(2, 5, size=num)]
    spoken = [clip + noise * rng.normal(size=clip.shape) for clip in clips]
    texts: list[tuple[str, int, Any, tuple[float, float]]] = []
    asked = []
    for i, sentences in enumerate(spoken):
        words = [f"Thing {i} does {k}." for k in range(len(sentences))]
        texts += [
            (w, i, s, (k, k + 1)) for k, (w, s) in enumerate(zip(words, sentences, strict=True))
        ]
        texts.append((" ".join(words).upper(), i, sentences.mean(axis=0), NO_SPAN))
        options = [*rng.normal(size=(3, width)), clips[i][0]]
        asked.append((i, 3, options))
    types = [("order", "motion")[i % 2] for i in range(num)]
    return split(clips, texts, asked=questions(width, asked, types=types), name=name)


E1, E2, E3 = np.eye(3)


# --- scores


@pytest.mark.parametrize("pooling", ["max", "top_mean", "softmax"])
def test_pooling_agrees_with_a_loop_over_ragged_clips(pooling: str) -> None:
    rng = np.random.default_rng(0)
    offsets = np.array([0, 1, 4, 6, 11])
    similarities = rng.normal(size=(7, 11)).astype(np.float32)
    config = dataclasses.replace(SegmentScoreConfig(top_k=2, temperature=0.5), pooling=pooling)
    pooled = pool_segments(similarities, offsets, config=config)
    for row in range(7):
        for clip in range(4):
            own = similarities[row, offsets[clip] : offsets[clip + 1]].astype(np.float64)
            weights = np.exp(own / 0.5)
            expected = {
                "max": own.max(),
                "top_mean": np.sort(own)[-2:].mean(),
                "softmax": (weights * own).sum() / weights.sum(),
            }[pooling]
            assert np.isclose(pooled[row, clip], expected, atol=1e-6)


def test_features_that_are_not_finite_are_refused() -> None:
    features = split([[E1], [E2]], [("a", 0, (np.nan, 0, 0), NO_SPAN)])
    with pytest.raises(UserError, match="1 of 1 texts have NaN"):
        embed(features, ZeroShot())


@pytest.mark.parametrize("head", ["identity", "residual"])
def test_an_untrained_run_equals_zero_shot_to_the_last_digit(head: Any) -> None:
    features, config = random_split(1, 40), EvaluationConfig()
    heads = HeadsConfig(video=HeadConfig(name=head), text=HeadConfig(name=head))
    model = AlignmentModel(RunConfig(heads=heads), dim_video=16, dim_text=16).eval()
    tasks = find_tasks(features, config)
    zero_shot = score_tasks(features, ZeroShot(), tasks, weight=0.3, config=config)
    trained = score_tasks(features, model, tasks, weight=0.3, config=config)
    assert list(zero_shot) == [
        "text_to_clip",
        "sentence_to_clip",
        "clip_to_text",
        "grounding",
        "multiple_choice",
        "moments",
    ]
    for task, by_score in zero_shot.items():
        for score, scored in by_score.items():
            other = trained[task][score]
            assert np.array_equal(scored.ranks.ranks, other.ranks.ranks)
            assert all(np.array_equal(v, other.values[n]) for n, v in scored.values.items())
            if scored.best_items is not None and other.best_items is not None:
                assert np.array_equal(scored.best_items.scores, other.best_items.scores)


# --- retrieval


def test_the_sentences_of_a_paragraph_are_those_that_stand_in_it() -> None:
    features = split(
        [[E1, E2], [E3]],
        [
            ("A dog runs, then it sleeps!", 0, E1, NO_SPAN),
            ("a dog runs", 0, E1, (0, 1)),
            ("It sleeps.", 0, E2, (1, 2)),
            ("a cat", 0, E2, (1, 2)),
            ("the dog and the cat", 0, E3, NO_SPAN),
            ("a dog runs", 1, E3, (0, 1)),
        ],
    )
    lists = sentences_of_texts(features)
    assert lists[0].tolist() == [1, 2] and lists[4].tolist() == [4]
    assert [lists[text].tolist() for text in (1, 2, 3, 5)] == [[1], [2], [3], [5]]


def test_a_paragraph_is_scored_by_the_mean_of_its_sentences_best_segments() -> None:
    """Clip 1 has a segment like the paragraph's own feature; only clip 0 has both sentences'."""
    both = (E1 + E2) / np.sqrt(2)
    features = split(
        [[E1, E2], [both, both]],
        [("one two", 0, both, NO_SPAN), ("one", 0, E1, (0, 1)), ("two", 0, E2, (1, 2))],
    )
    config = EvaluationConfig()
    tasks = find_tasks(features, config)
    scored = score_tasks(features, ZeroShot(), tasks, weight=0.0, config=config)["text_to_clip"]
    shown = scored["segment"].best_items
    assert shown is not None
    assert shown.items.tolist() == [[0, 1]]
    assert np.allclose(shown.scores, [[1, np.sqrt(0.5)]])
    assert scored["segment"].ranks.ranks.tolist() == [0]
    assert scored["global"].ranks.ranks.tolist() == [1]  # a tie, against us
    assert scored["global"].ranks.tied.tolist() == [True]


def test_clip_to_text_counts_the_best_own_caption_among_all_captions() -> None:
    """Clip 0's captions stand second and third behind a caption of clip 1; clip 2 has none."""
    features = split(
        [[E1], [E2], [E3]],
        [
            ("near", 0, (0.8, 0.6, 0), NO_SPAN),
            ("far", 0, (0.1, 0, 1), NO_SPAN),
            ("other's", 1, (0.9, 0.1, 0), NO_SPAN),
            ("its own", 1, (0, 1, 0), NO_SPAN),
        ],
    )
    config = EvaluationConfig()
    tasks = find_tasks(features, config)
    (forward, back) = tasks.retrieval
    assert back.queries.query_ids == ["clip0", "clip1"]
    assert back.queries.chance == 50
    scored = score_tasks(features, ZeroShot(), tasks, weight=0.5, config=config)
    assert scored["clip_to_text"]["global"].ranks.ranks.tolist() == [1, 0]
    assert scored["text_to_clip"]["global"].ranks.ranks.tolist() == [0, 1, 1, 0]
    assert count_items(features, tasks)["clips_without_global_text"] == 1
    assert np.isclose(forward.queries.chance, 100 / 3)


def test_only_the_asked_directions_are_scored() -> None:
    features = random_split(0, 5)
    one_way = EvaluationConfig(directions=("clip_to_text",))
    assert [t.queries.name for t in retrieval_tasks(features, one_way)] == ["clip_to_text"]


def test_the_fused_weight_comes_from_validation_and_ties_go_to_the_middle() -> None:
    config = EvaluationConfig()
    chosen = choose_fused_weight(random_split(3, 60, noise=1.5, name="val"), ZeroShot(), config)
    assert chosen.chosen_on == "val" and chosen.value < 0.9
    easy = split([[E1], [E2]], [("a", 0, E1, NO_SPAN), ("b", 1, E2, NO_SPAN)], name="val")
    assert choose_fused_weight(easy, ZeroShot(), config).value == 0.5
    default = choose_fused_weight(None, ZeroShot(), config)
    assert (default.value, default.chosen_on) == (0.5, None)
    assert default.reason == "the default: no separate split 'val'"


# --- grounding


def test_grounding_on_a_hand_worked_clip() -> None:
    """Right, wrong, tied (against us), two equally right segments, and one without any segment."""
    features = split(
        [[E1, E2, E2]],
        [
            ("right", 0, E1, (0, 1)),
            ("wrong", 0, E2, (0, 1)),
            ("tied", 0, E2, (1, 2)),
            ("either", 0, E2, (1, 3)),
            ("nowhere", 0, E1, (8, 9)),
        ],
    )
    task = grounding_task(features)
    assert task is not None and task.num_left_out == 1
    assert np.isclose(task.queries.chance, 100 * (3 * 1 / 3 + 2 / 3) / 4)
    scored = score_grounding(task, features, embed(features, ZeroShot()))["segment"]
    assert scored.values["accuracy"].tolist() == [100, 0, 0, 100]
    assert scored.values["mIoU"].tolist() == [100, 0, 0, 50]
    assert scored.ranks.ranks.tolist() == [0, 2, 1, 0]
    assert scored.ranks.tied.tolist() == [False, False, True, False]


def test_grounding_agrees_with_a_loop() -> None:
    features = random_split(4, 30, noise=2.0)
    task = grounding_task(features)
    assert task is not None
    embeddings = embed(features, ZeroShot())
    found = score_grounding(task, features, embeddings)["segment"].values["accuracy"]
    for row, accuracy in zip(task.texts, found, strict=True):
        clip = features.text_clips[row]
        own = slice(features.segment_offsets[clip], features.segment_offsets[clip + 1])
        top = (embeddings.segments[own] @ embeddings.texts[row]).argmax()
        starts = features.segment_spans[own][:, 0]
        assert accuracy == 100 * (starts[top] == features.text_spans[row, 0])


# --- questions


def test_choices_on_hand_worked_questions() -> None:
    """The segment score finds what the mean of a clip hides; equal options count as wrong."""
    asked = questions(
        3,
        [
            (0, 0, [E1, E1 + 0.7 * E2]),
            (0, 1, [E3, E2]),
            (1, 0, [E3, E3]),
            (0, -1, [E1, E2]),
        ],
        types=["a", "b", None, "a", None],
        open_ended=1,
    )
    features = split([[E1, E2], [E3]], [], asked=asked)
    config = EvaluationConfig()
    task = choice_task(features)
    assert task is not None
    assert task.queries.query_ids == ["q0", "q1", "q2"]
    assert task.queries.chance == 50
    assert {name: rows.tolist() for name, rows in task.queries.subsets.items()} == {
        "a": [0],
        "b": [1],
    }
    zero_shot = ZeroShot()
    embeddings = embed(features, zero_shot)
    scored = score_choices(task, features, embeddings, weight=0.5, config=config, encoder=zero_shot)
    assert scored["global"].values["accuracy"].tolist() == [0, 100, 0]
    assert scored["segment"].values["accuracy"].tolist() == [100, 100, 0]
    assert scored["segment"].ranks.tied.tolist() == [False, False, True]
    counts = count_items(features, find_tasks(features, config))
    assert counts["multiple_choice_without_answer"] == 1
    assert counts["open_ended_questions_not_scored"] == 1


def test_a_split_without_texts_and_questions_is_a_clear_error() -> None:
    with pytest.raises(UserError, match="no texts or labelled"):
        find_tasks(split([[E1]], []), EvaluationConfig())


# --- rows


def fake_run(path: Path, *, seed: int = 0, level: float = 1.0, key: str = KEY) -> Run:
    config = RunConfig(seed=seed)
    losses = dataclasses.replace(config.losses, segment_weight=level)
    model = build_model(config, dim_video=16, dim_text=16)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in model.parameters():
            weights += 0.05 * level * torch.randn(weights.shape, generator=generator)
    return Run(
        path=path,
        config=dataclasses.replace(config, losses=losses),
        model=model.eval(),
        cache_key=key,
        segment_rule="spans",
        metrics={},
    )


def test_runs_that_differ_only_in_the_seed_share_a_row() -> None:
    runs = [
        fake_run(Path("runs/both-seed1"), seed=1, level=1),
        fake_run(Path("runs/segment-seed0"), seed=0, level=2),
        fake_run(Path("runs/both-seed0"), seed=0, level=1),
        fake_run(Path("runs/nested/seed3"), seed=3, level=3),
    ]
    rows = table_rows(runs)
    assert [row.name for row in rows] == ["zero-shot", "both", "segment", "nested"]
    assert [[run.config.seed for run in row.runs] for row in rows] == [[], [0, 1], [0], [3]]


def test_rows_of_one_name_take_their_parents_and_twins_are_refused() -> None:
    first, second = fake_run(Path("a/run"), level=1), fake_run(Path("b/run"), level=2)
    assert [row.name for row in table_rows([first, second])] == ["zero-shot", "a/run", "b/run"]
    with pytest.raises(UserError, match="same settings and the same seed"):
        table_rows([first, dataclasses.replace(first, path=Path("b/run"))])


# --- the command


class FakeStore:
    """Stands for a cache with the splits test and val."""

    key = KEY
    splits = ("test", "train", "val")
    record: ClassVar = {
        "videos_root": "/nowhere",
        "official": {"test": {"clips": 61, "texts": 99, "questions": 0}},
    }
    dim = text_dim = 16

    def __init__(self, path: Path) -> None:
        self.path = path
        ids = self.split("test").clip_ids
        columns = {"clip_id": ids, "video_path": ids, "start_seconds": [None] * len(ids)}
        self.clips = pa.table(columns)

    @classmethod
    def open(cls, path: Path) -> FakeStore:
        return cls(path)

    def split(self, name: str | None, **options: object) -> SplitFeatures:
        seed = {"val": 7, "train": 9}.get(name or "all", 8)
        return random_split(seed, 50, noise=1.5, name=name or "all")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """RUN folders by name: NAME-seedN, "foreign-..." made on another cache."""

    def load(path: Path) -> Run:
        name, _, seed = path.name.partition("-seed")
        if not seed:
            raise RunError(f"no run folder at {path}")
        levels = {"global": 3.0, "both": 1.0, "one": 2.0, "foreign": 1.0}
        key = "f" * 16 if name == "foreign" else KEY
        return fake_run(path, seed=int(seed), level=levels[name], key=key)

    monkeypatch.setattr(evaluation, "FeatureStore", FakeStore)
    monkeypatch.setattr(evaluation, "load_run", load)


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["cache", "--set", "bootstrap_samples=100", *arguments])


FOUR_RUNS = [f"--run=runs/{name}-seed{seed}" for name in ("global", "both") for seed in (0, 1)]


def test_segments_are_those_that_the_runs_were_trained_on() -> None:
    one, other = (SimpleNamespace(segment_rule=rule) for rule in ("uniform:8", "spans"))
    config = EvaluationConfig()
    assert with_segment_rule(config, []).segment_rule is None
    assert with_segment_rule(config, [one, one]).segment_rule == "uniform:8"
    with pytest.raises(UserError, match=r"segments of several rules \(spans, uniform:8\)"):
        with_segment_rule(config, [one, other])
    given = EvaluationConfig(segment_rule="uniform:4")
    assert with_segment_rule(given, [one, other]) is given


@pytest.mark.usefixtures("runs")
def test_the_report_holds_rows_seeds_intervals_and_comparisons(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "report"
    result = command(*FOUR_RUNS, "-o", str(out), "--baseline", "global")
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in out.iterdir()) == [
        "config.yaml",
        "queries.parquet",
        "report.html",
        "results.json",
        "table.csv",
        "table.tex",
    ]
    content = json.loads((out / "results.json").read_text())
    assert [row["name"] for row in content["rows"]] == ["zero-shot", "global", "both"]
    assert content["settings"]["baseline"] == "global"
    assert content["cache"] == {"path": "cache", "key": KEY}
    assert content["counts"]["clips"] == 50 and content["counts"]["failed_clips_left_out"] == 1
    assert content["rows"][1]["runs"][1]["seed"] == 1
    assert content["rows"][1]["runs"][1]["fused_weight"]["chosen_on"] == "val"
    for row in content["rows"]:
        for score in row["scores"]:
            for metric in score["metrics"].values():
                assert metric["low"] <= metric["value"] <= metric["high"]
                assert np.isclose(np.mean(metric["per_seed"]), metric["value"])
                assert (metric["seed_deviation"] is None) == (row["name"] == "zero-shot")
    types = {s["subset"] for s in content["rows"][0]["scores"] if s["task"] == "multiple_choice"}
    assert types == {None, "order", "motion"}
    assert {item["row"] for item in content["comparisons"]} == {"zero-shot", "both"}
    values = {row["name"]: row["scores"][0]["metrics"]["R@1"]["value"] for row in content["rows"]}
    first = content["comparisons"][0]
    assert (first["row"], first["task"], first["score"], first["metric"]) == (
        "zero-shot",
        "text_to_clip",
        "global",
        "R@1",
    )
    assert np.isclose(first["difference"], values["zero-shot"] - values["global"])


@pytest.mark.usefixtures("runs")
def test_tests_of_a_report_are_corrected_together_and_seeds_have_a_wider_interval(
    tmp_path: Path,
) -> None:
    assert command(*FOUR_RUNS, "--run=runs/one-seed0", "-o", str(tmp_path)).exit_code == 0
    content = json.loads((tmp_path / "results.json").read_text())
    main = {"R@1", "accuracy", "R@1 IoU 0.5"}
    family = [item for item in content["comparisons"] if item["p_holm"] is not None]
    assert len(family) == 3 * 14, "three rows, and the tasks by each of their scores"
    for item in content["comparisons"]:
        is_member = item["subset"] is None and item["metric"] in main
        assert (item["p_holm"] is not None) == is_member
        assert (item["with_seeds"] is None) == (item["row"] == "one")
        assert item["mcnemar"] is None or item["row"] == "one", (
            "a mean over seeds is no hit or miss"
        )
        if item["row"] == "one" and item["metric"] in main:
            counts = item["mcnemar"]
            assert item["difference"] * item["num_queries"] / 100 == pytest.approx(
                counts["gained"] - counts["lost"]
            )
    smallest = min(family, key=lambda item: item["p_permutation"])
    assert smallest["p_holm"] == pytest.approx(len(family) * smallest["p_permutation"])
    sentences = [item for item in family if item["task"] == "sentence_to_clip"]
    assert all(item["num_clips"] == 50 < item["num_queries"] for item in sentences)
    for row in content["rows"]:
        for score in row["scores"]:
            for metric in score["metrics"].values():
                wider = metric["with_seeds"]
                assert (wider is None) == (row["name"] in ("zero-shot", "one"))
                assert wider is None or wider["low"] <= metric["value"] <= wider["high"]


@pytest.mark.usefixtures("runs")
def test_the_queries_file_gives_the_numbers_of_the_report(tmp_path: Path) -> None:
    assert command(*FOUR_RUNS, "-o", str(tmp_path)).exit_code == 0
    content = json.loads((tmp_path / "results.json").read_text())
    lines = pq.read_table(tmp_path / "queries.parquet").to_pandas()
    for row in content["rows"]:
        for score in row["scores"]:
            if score["task"] != "text_to_clip":
                continue
            mine = lines[
                (lines["row"] == row["name"])
                & (lines["task"] == score["task"])
                & (lines["score"] == score["score"])
            ]
            assert len(mine) == score["num_queries"] * len(row["runs"])
            r1 = 100 * (mine["rank"] == 1).mean()
            assert np.isclose(r1, score["metrics"]["R@1"]["value"])
    best = lines[(lines["task"] == "text_to_clip") & (lines["rank"] == 1)].iloc[0]
    assert best["shown_ids"][0] == best["clip_id"]
    assert len(best["shown_ids"]) == len(best["shown_scores"]) == len(best["shown_starts"]) == 10
    assert best["shown_ends"][0] - best["shown_starts"][0] == 1


@pytest.mark.usefixtures("runs")
def test_the_table_fits_100_columns_and_says_what_matters(tmp_path: Path) -> None:
    output = command(*FOUR_RUNS, "-o", str(tmp_path), "--baseline", "global").stdout
    lines = output.splitlines()
    assert max(len(line) for line in lines) <= 100
    assert "Split test: 50 clips found of 61 official (1 without features left out)" in lines
    assert [line.split()[0] for line in lines if line[:4] in ("zero", "glob", "both")][:3] == [
        "zero-shot",
        "global",
        "both",
    ]
    assert "both vs global, paired on the same queries:" in lines
    assert "a is chosen by text_to_clip R@1 on split 'val'." in lines
    assert "Segments are the annotated spans" in output
    assert "…" not in output
    assert lines[-1] == f"Report: {tmp_path / 'report.html'}"


@pytest.mark.usefixtures("runs")
def test_json_output_is_the_results_file(tmp_path: Path) -> None:
    result = command("-o", str(tmp_path), "--json", "--set", "split=null")
    content = json.loads(result.stdout)
    assert content == json.loads((tmp_path / "results.json").read_text())
    assert content["comparisons"] == []
    weight = content["rows"][0]["runs"][0]["fused_weight"]
    assert weight["value"] == 0.5 and weight["chosen_on"] is None


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--run=foreign-seed0"],
            "Error: foreign-seed0 was trained on a cache with key ffffffffffff, but cache has key "
            "0123456789ab: evaluate it on the cache it was trained on, or train it again on this "
            "one",
        ),
        (["--run=nothing"], "Error: no run folder at nothing"),
        (
            ["--baseline=best"],
            "Error: no row is called 'best'; the rows are zero-shot",
        ),
        (
            ["--set", "split=dev"],
            "Error: cache has no split 'dev'; it has test, train, val: choose one with --set "
            "split=NAME, or all clips with --set split=null",
        ),
        (
            ["--set", "normalisations=[qb_norm]", "--set", "bank_split=bank"],
            "Error: qb_norm needs a bank of training queries, but cache has no split 'bank'; it "
            "has test, train, val: choose one with --set bank_split=NAME",
        ),
        (["--set", "index.factory=Flatt"], "Error: cannot build the index 'Flatt' of"),
    ],
)
def test_wrong_input_is_one_message_and_writes_nothing(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    out = tmp_path / "report"
    result = command("-o", str(out), *arguments)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(message)
    assert not out.exists()


def test_wrong_settings_are_reported_together(tmp_path: Path) -> None:
    result = command(
        "-o", str(tmp_path / "report"), "--set", "recall_ks=[5]", "--set", "splits=test"
    )
    assert result.exit_code == 2
    assert "recall_ks must have 1" in result.stderr and "splits" in result.stderr


def test_a_file_in_the_reports_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "report"
    path.write_text("mine")
    result = command("-o", str(path))
    assert (result.exit_code, path.read_text()) == (2, "mine")


@pytest.mark.usefixtures("runs")
def test_normalised_scores_are_rows_of_their_own_against_their_row(tmp_path: Path) -> None:
    settings = ["--set", "normalisations=[qb_norm,dual_softmax]"]
    output = command(*FOUR_RUNS, "-o", str(tmp_path), *settings).stdout
    content = json.loads((tmp_path / "results.json").read_text())
    plain = ["zero-shot", "global", "both"]
    labels = {"qb_norm": "QB-Norm", "dual_softmax": "dual softmax"}
    rows = {row["name"]: row for row in content["rows"]}
    assert list(rows) == [*plain, *(f"{row} + {name}" for name in labels.values() for row in plain)]
    tasks = {"text_to_clip", "sentence_to_clip", "clip_to_text"}
    for row in plain:
        assert rows[row]["normalised"] is None
        for name, label in labels.items():
            found = rows[f"{row} + {label}"]
            assert (found["normalised"]["row"], found["normalised"]["name"]) == (row, name)
            assert {score["task"] for score in found["scores"]} == tasks
            assert [run["seed"] for run in found["runs"]] == [
                run["seed"] for run in rows[row]["runs"]
            ]
    pairs = {(item["row"], item["baseline"]) for item in content["comparisons"]}
    assert pairs == {("global", "zero-shot"), ("both", "zero-shot")} | {
        (f"{row} + {label}", row) for row in plain for label in labels.values()
    }
    for kind in (False, True):
        family = [
            item
            for item in content["comparisons"]
            if item["p_holm"] is not None and ("+" in item["row"]) == kind
        ]
        smallest = min(family, key=lambda item: item["p_permutation"])
        expected = min(1, len(family) * smallest["p_permutation"])
        assert smallest["p_holm"] == pytest.approx(expected), "two families, corrected apart"
    lines = pq.read_table(tmp_path / "queries.parquet").to_pandas()
    assert set(lines["row"]) == set(rows)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    bold = [line for line in page.split("<tr>") if 'class="best"' in line]
    assert bold and not any(label in line for line in bold for label in labels.values())
    for text in ("split train, beta 20", "temperature 0.01"):
        assert text in page and text in " ".join(output.split())


@pytest.mark.usefixtures("runs")
def test_a_bank_without_queries_of_a_task_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FakeStore.split

    def without_texts(self: FakeStore, name: str | None, **options: Any) -> SplitFeatures:
        features = whole(self, name, **options)
        if name == "train":
            return split([[np.ones(16)]], [("a", 0, np.ones(16), (0, 1))], name="train")
        return features

    monkeypatch.setattr(FakeStore, "split", without_texts)
    result = command("-o", str(tmp_path / "report"), "--set", "normalisations=[qb_norm]")
    assert result.exit_code == 2
    assert "split 'train' has none of text_to_clip, clip_to_text" in result.stderr


@pytest.mark.usefixtures("runs")
def test_an_approximate_index_reports_what_it_misses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cache").mkdir()
    settings = ["--set", "index.factory=IVF8,Flat", "--set", "index.search=nprobe=1"]
    result = command(*FOUR_RUNS, "-o", str(tmp_path / "report"), *settings)
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "report" / "results.json").read_text())
    for row in content["rows"]:
        for run in row["runs"]:
            effect = run["index_effect"]
            assert (effect["factory"], effect["search"]) == ("IVF8,Flat", "nprobe=1")
            assert 0 < effect["segment_recall_at_10"] < 100
            assert effect["exact"].keys() == effect["approximate"].keys() == {"R@1", "R@5", "R@10"}
    assert "of the ten nearest segments are found" in " ".join(result.output.split())


@pytest.mark.usefixtures("runs")
def test_an_exact_index_has_no_effect_to_report(tmp_path: Path) -> None:
    assert command(*FOUR_RUNS, "-o", str(tmp_path)).exit_code == 0
    content = json.loads((tmp_path / "results.json").read_text())
    assert {run["index_effect"] for row in content["rows"] for run in row["runs"]} == {None}


def test_features_of_two_widths_have_no_zero_shot_row(monkeypatch, tmp_path):
    monkeypatch.setattr(FakeStore, "text_dim", 8)
    with pytest.raises(UserError, match="width 16 and text features of width 8, .* give a run"):
        evaluation._without_zero_shot(FakeStore(tmp_path), [], EvaluationConfig())
    run = Run(
        path=tmp_path / "linear-seed0",
        config=RunConfig(),
        model=None,
        cache_key="k",
        segment_rule="r",
        metrics={},
    )
    chosen = evaluation._without_zero_shot(FakeStore(tmp_path), [run], EvaluationConfig())
    assert chosen.baseline == "linear"
    assert [row.name for row in table_rows([run], has_zero_shot=False)] == ["linear"]
