"""Free-text search: the texts of a cache find their own clips, and bad input is one message."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from browser import BROWSER, look_at
from click.testing import CliRunner, Result

from mlalign.align.config import RunConfig
from mlalign.data_manifests.tables.sentences import split_sentences
from mlalign.evaluate.config import EvaluationConfig
from mlalign.evaluate.scores.similarity import level_scores
from mlalign.evaluate.scores.vectors import ZeroShot, clip_vectors, embed
from mlalign.evaluate.search.cli import main
from mlalign.evaluate.search.search import Hit, Library, write_search_page
from mlalign.extract.cache.store import FeatureStore
from mlalign.extract.encode.query_encoder import load_query_encoder


def command(*arguments: object, stdin: str = "") -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


@pytest.fixture(scope="module")
def store(small_cache: Path) -> FeatureStore:
    return FeatureStore.open(small_cache)


def test_the_query_encoder_gives_the_features_of_the_cache(
    small_cache: Path, store: FeatureStore
) -> None:
    """To the float16 of the cache and bfloat16's rounding of other batch shapes."""
    features = store.split(None)
    assert features.sentences is not None
    encoded, sentences = load_query_encoder(small_cache)(features.texts)
    for text, feature in enumerate(encoded):
        own = features.sentences[text]
        is_one = len(own) == 0
        assert is_one == (len(split_sentences(features.texts[text])) == 1)
        assert_alike(feature[None], features.text_features[text : text + 1])
        assert_alike(sentences[text], features.text_features[text : text + 1] if is_one else own)
    assert (features.sentences.counts > 1).any()


def assert_alike(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    assert (np.sum(ours * theirs, axis=1) / lengths > 0.999).all()


def test_hits_are_those_of_brute_force(small_cache: Path, store: FeatureStore) -> None:
    features = store.split(None)
    library = Library.open(
        small_cache, run_path=None, config=EvaluationConfig(split=None, validation_split=None)
    )
    text = features.texts[0]
    (hits,) = library.search([text], top=4)
    query = library._vectors([text])
    whole, parts = level_scores(
        query,
        clip_vectors(features, embed(features, ZeroShot())),
        config=EvaluationConfig().segment_score,
    )
    scores = (0.5 * whole + 0.5 * parts)[0]
    order = np.argsort(-scores, kind="stable")[:4]
    assert [hit.clip_id for hit in hits] == [features.clip_ids[clip] for clip in order]
    assert [hit.rank for hit in hits] == [1, 2, 3, 4]
    assert np.allclose([hit.score for hit in hits], scores[order], atol=1e-6)
    for hit, clip in zip(hits, order, strict=True):
        rows = slice(*features.segment_offsets[clip : clip + 2])
        spans = features.segment_spans[rows].tolist()
        assert [hit.start_seconds, hit.end_seconds] in spans
        assert Path(hit.video).is_file()


def test_moments_are_in_the_time_of_the_video(make_video, mlalign_extract, tmp_path: Path) -> None:
    """A clip that begins at 2 s of its video: its moments do, too."""
    videos = tmp_path / "videos"
    videos.mkdir()
    make_video(videos / "one.mp4", range(0, 4000, 100))
    table = tmp_path / "parts.csv"
    table.write_text("video_path,start_seconds,end_seconds\none.mp4,2,4\n")
    cache = tmp_path / "cache"
    arguments = ("--manifest", table, videos, "-o", cache, "--backbone", "tiny", "--fps", "2")
    assert mlalign_extract(*arguments, "--segments", "uniform:2").exit_code == 0
    done = command(cache, "a thing", "--json")
    hit = json.loads(done.stdout)
    assert (hit["start_seconds"], hit["end_seconds"]) in [(2.0, 3.0), (3.0, 4.0)]


def test_texts_come_from_the_standard_input(small_cache: Path) -> None:
    done = command(small_cache, "--top", 2, "--json", stdin="a red circle\n\nthe blue square\n")
    assert done.exit_code == 0, done.output
    hits = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(hit["text"], hit["rank"]) for hit in hits] == [
        (text, rank) for text in ("a red circle", "the blue square") for rank in (1, 2)
    ]


def test_the_plain_lines_have_rank_score_moment_and_file(small_cache: Path) -> None:
    done = command(small_cache, "a red circle", "--top", 3)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["1", "2", "3"]
    assert all(line.endswith(".mp4") and " s  " in line for line in lines)


def test_a_run_brings_its_heads(small_cache: Path, tmp_path: Path) -> None:
    from mlalign.align.config import DataConfig, OptimiserConfig
    from mlalign.align.trainer import train_run

    data = DataConfig(train_split="train", validation_split=None)
    config = RunConfig(data=data, optimiser=OptimiserConfig(epochs=2, warmup_epochs=1))
    train_run(small_cache, tmp_path / "run", config)
    plain, trained = (
        command(small_cache, "a red circle", "--json", *options)
        for options in ((), ("--run", tmp_path / "run"))
    )
    assert trained.exit_code == 0, trained.output
    assert trained.stdout != plain.stdout


def test_a_page_has_a_player_per_hit_at_its_moment(small_cache: Path, tmp_path: Path) -> None:
    page = tmp_path / "hits.html"
    done = command(small_cache, "a <b>red</b> circle", "--top", 2, "--html", page)
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert text.count("<video ") == 2 and text.count("#t=") == 2
    assert "a &lt;b&gt;red&lt;/b&gt; circle" in text and "http" not in text.replace("</", "")


def test_names_of_files_are_escaped_in_the_page(tmp_path: Path) -> None:
    video = tmp_path / 'a "quoted"#1?.mp4'
    video.touch()
    write_search_page([("x", [hit_of(video)])], tmp_path / "page.html", about="about")
    text = (tmp_path / "page.html").read_text()
    assert "<script>" not in text
    assert f'src="file://{tmp_path}/a%20%22quoted%22%231%3F.mp4#t=1.000,2.500"' in text


def hit_of(video: Path) -> Hit:
    return Hit(
        text="x",
        rank=1,
        score=0.5,
        clip_id='"><script>',
        video=str(video),
        start_seconds=1.0,
        end_seconds=2.5,
    )


def test_a_video_that_is_gone_is_named_instead_of_a_black_player(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_search_page([("x", [hit_of(tmp_path / "gone.mp4")])], page, about="about")
    text = page.read_text()
    assert "<video" not in text and f"no video file: {tmp_path / 'gone.mp4'}" in text


def test_a_page_that_cannot_be_written_is_refused_before_the_search(tmp_path: Path) -> None:
    done = command(tmp_path / "no-cache", "x", "--html", tmp_path / "gone" / "hits.html")
    assert done.exit_code == 2 and "there is no folder" in done.output
    done = command(tmp_path / "no-cache", "x", "--html", tmp_path)
    assert done.exit_code == 2 and "is a folder" in done.output


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs chromium")
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page_whole(tmp_path: Path, width: int, dark: bool) -> None:
    page = tmp_path / "hits.html"
    hits = [hit_of(tmp_path / f"{'long' * 40}.mp4")] * 3
    write_search_page([("a text " * 40, hits)], page, about="about")
    seen = look_at(page, tmp_path, width=width, dark=dark)
    assert (seen["width"], seen["wide"]) == (width, []) and seen["scroll"] <= width
    assert seen["contrast"] > 7


def test_nothing_to_search_for_is_a_usage_error(small_cache: Path) -> None:
    assert command(small_cache).exit_code == 2
    done = command(small_cache, " ")
    assert done.exit_code == 2 and "expected a text to search for, got ' '" in done.output


def test_other_weights_than_the_caches_are_refused(copied_cache: Path) -> None:
    from mlalign.extract.cache.contract import cache_key

    path = copied_cache / "cache.json"
    content = json.loads(path.read_text())
    content["settings"]["weights_sha256"] = "0" * 64
    content["key"] = cache_key(content["settings"])
    path.write_text(json.dumps(content))
    done = command(copied_cache, "a red circle")
    assert done.exit_code == 2 and "are not those that made" in done.output


def test_an_approximate_index_is_kept_beside_the_cache(copied_cache: Path) -> None:
    done = command(copied_cache, "a red circle", "--set", "index.factory=HNSW8", "--json")
    assert done.exit_code == 0, done.output
    assert len(list((copied_cache / "indexes").glob("*.faiss"))) == 2
    again = command(copied_cache, "a red circle", "--set", "index.factory=HNSW8", "--json")
    assert again.stdout == done.stdout
