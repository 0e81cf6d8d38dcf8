"""Prediction files with every kind of fault: told in full with exit code 2, never a traceback."""

from __future__ import annotations

import copy
import gzip
import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from mlalign.data_manifests.cards.scoring_rules import Chunks
from mlalign.evaluate.cli import main
from mlalign.evaluate.official.files import PredictionError
from mlalign.evaluate.official.registry import dataset_scorers, score_predictions
from mlalign.evaluate.official.retrieval import RetrievalRules


@dataclass(frozen=True, kw_only=True)
class Files:
    """A right prediction file of a dataset, and the annotations."""

    name: str
    content: Any
    annotations: str
    truth: Any

    def write(self, folder: Path) -> tuple[Path, Path]:
        paths = folder / self.name, folder / self.annotations
        for path, content in zip(paths, (self.content, self.truth), strict=True):
            path.write_text(content if isinstance(content, str) else text(path.name, content))
        return paths


def text(name: str, content: Any) -> str:
    if name.endswith(".jsonl"):
        return "".join(json.dumps(line) + "\n" for line in content)
    return json.dumps(content)


WINDOWS = [[0.0, 5.0, 0.9], [2.0, 9.0, 0.5]]
SENTENCES = {"v": {"timestamps": [[0, 9], [3, 8]], "sentences": ["a", "b"], "fps": 2.0}}
WINDOW_RECORDS = [{"qid": f"v_{k}", "pred_relevant_windows": WINDOWS} for k in range(2)]
ASKED = [{"qid": n, "vid_name": "s", "answer_idx": str(n), "ts": [1, 5 + n]} for n in range(2)]
BOX = {"label": "cup", "left": 1, "top": 2, "width": 30, "height": 20}
FOUND = [{"desc_id": n, "predictions": [[n, 0, 5, 0.9], [1 - n, 0, 5, 0.5]]} for n in range(2)]
ANSWERED = [{"id": n, "answer": "man", "question": "who?"} for n in range(2)]
RANKED = [
    {"annotation_id": n, "predictions": [list(c) for c in Chunks().candidates()]} for n in range(2)
]
HEADER = "video,question,answer,qid,type,a0,a1,a2,a3,a4\n"

FILES = {
    "next-qa": Files(
        name="p.json",
        content={"4_0": {"prediction": 1, "answer": 0}, "4_1": {"prediction": 0, "answer": 0}},
        annotations="val.csv",
        truth=HEADER + "4,why,0,0,CW,a,b,c,d,e\n4,why,0,1,TP,a,b,c,d,e\n",
    ),
    "vlep": Files(
        name="p.jsonl",
        content=[{"example_id": n, "pred_ans": n} for n in range(2)],
        annotations="a.jsonl",
        truth=[{"example_id": n, "answer": 0} for n in range(2)],
    ),
    "violin": Files(
        name="p.json",
        content={"c-0-0": 1, "c-0-1": 1},
        annotations="violin_annotation.json",
        truth={"c": {"split": "validate", "statement": [["t", "f"]]}},
    ),
    "tvqa": Files(name="p.json", content={"0": 0, "1": 3}, annotations="a.json", truth=ASKED),
    "msrvtt-mc": Files(
        name="p.json",
        content={"0": 0, "1": 3},
        annotations="a.jsonl",
        truth=[{"qid": n, "answer": 3} for n in range(2)],
    ),
    "tvqa-plus": Files(
        name="p.json",
        content={
            "ts_answer": {str(n): [[1.0, 4.0], n] for n in range(2)},
            "bbox": {"s_0_00003": [["cup", 0.9, [1, 2, 30, 20]]]},
        },
        annotations="a.json",
        truth=[{**record, "bbox": {"3": [BOX]}} for record in ASKED],
    ),
    "activitynet-qa": Files(
        name="p.json",
        content=[{"question_id": f"q{n}", "answer": "no"} for n in range(2)],
        annotations="val_a.json",
        truth=[{"question_id": f"q{n}", "answer": "no", "type": 3 * n} for n in range(2)],
    ),
    "msvd-qa": Files(
        name="p.json",
        content=[{"id": n, "answer": "man"} for n in range(2)],
        annotations="a.json",
        truth=ANSWERED,
    ),
    "tacos": Files(
        name="p.jsonl", content=WINDOW_RECORDS, annotations="test.json", truth=SENTENCES
    ),
    "charades-sta": Files(
        name="p.json",
        content=[{"qid": n, "pred_relevant_windows": WINDOWS} for n in range(2)],
        annotations="charades_sta_test.txt",
        truth="V 1.0 5.0##a b.\nV 2.0 6.0##c.\n",
    ),
    "tvr": Files(
        name="p.json",
        content={"video2idx": {"a": 0, "b": 1}, "VCMR": FOUND, "SVMR": FOUND, "VR": FOUND},
        annotations="a.jsonl",
        truth=[{"desc_id": n, "vid_name": "ab"[n], "type": "v", "ts": [0, 6]} for n in range(2)],
    ),
    "qvhighlights": Files(
        name="p.jsonl",
        content=[
            {"qid": n, "pred_relevant_windows": WINDOWS, "pred_saliency_scores": [0.1] * 5}
            for n in range(2)
        ],
        annotations="a.jsonl",
        truth=[
            {"qid": n, "duration": 10, "relevant_windows": [[0, 8]]}
            | {"relevant_clip_ids": [0], "saliency_scores": [[4, 3, 2]]}
            for n in range(2)
        ],
    ),
    "didemo": Files(
        name="p.json",
        content=RANKED,
        annotations="a.json",
        truth=[{"annotation_id": n, "times": [[0, 1]] * 4} for n in range(2)],
    ),
}

JUNK = [None, True, "x", -1, 99, float("nan"), float("inf"), 10**400, 1e308, [], [[]], {}]


def run(dataset: str, predictions: Path, annotations: Path, *more: str) -> Result:
    files = ["--predictions", str(predictions), "--annotations", str(annotations)]
    return CliRunner().invoke(main, ["score", dataset, *files, "--json", *more])


def refused(dataset: str, predictions: Path, annotations: Path, *more: str) -> str:
    result = run(dataset, predictions, annotations, *more)
    assert result.exit_code == 2, (result.output, result.exception)
    assert str(predictions) in result.stderr or more, result.stderr
    return result.stderr


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value within a content is."""
    yield above
    keys = range(len(value)) if isinstance(value, list) else value
    if not isinstance(value, (dict, list)):
        return
    for key in keys:
        yield from places(value[key], (*above, key))


def changed(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at a place."""
    if not place:
        return value
    inside = found = copy.deepcopy(content)
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    return found


def _at(content: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        content = content[key]
    return content


def with_key_twice(value: Any, place: tuple[Any, ...]) -> str:
    """The JSON of a content, with the key at a place twice in its object."""
    if isinstance(value, list):
        return f"[{', '.join(with_key_twice(v, _below(place, k)) for k, v in enumerate(value))}]"
    if not isinstance(value, dict):
        return json.dumps(value)
    pairs = []
    for key, inside in value.items():
        pair = f"{json.dumps(key)}: {with_key_twice(inside, _below(place, key))}"
        pairs += [pair] * (2 if place == (key,) else 1)
    return f"{{{', '.join(pairs)}}}"


def _below(place: tuple[Any, ...], key: Any) -> tuple[Any, ...]:
    return place[1:] if place and place[0] == key else ()


@pytest.fixture(params=FILES)
def dataset(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_byte_order_mark_line_ends_and_blank_lines_change_nothing(dataset, tmp_path):
    found, truth = FILES[dataset].write(tmp_path)
    right, content = run(dataset, found, truth), found.read_text()
    assert right.exit_code == 0, right.output
    for other in ("\ufeff" + content, content.replace("\n", "\r\n"), content + "\n\n \n"):
        found.write_bytes(other.encode())
        assert run(dataset, found, truth).stdout == right.stdout


@pytest.mark.parametrize("which", ["predictions", "annotations"])
def test_bytes_that_are_no_such_file_are_refused(dataset, which, tmp_path):
    found, truth = FILES[dataset].write(tmp_path)
    path = found if which == "predictions" else truth
    content = path.read_bytes()
    broken = [b"", content[: len(content) // 3], gzip.compress(content), content + b"\xe9"]
    for bytes_ in [*broken, content.decode().encode("utf-16"), b"[" * 10**5, b"null", b"{}", b"[]"]:
        path.write_bytes(bytes_)
        result = run(dataset, found, truth)
        assert result.exit_code == 2, (bytes_[:40], result.output, result.exception)
        assert str(path) in result.stderr
    assert run(dataset, tmp_path, truth).exit_code == 2


def test_every_key_that_is_there_twice_is_a_fault(dataset, tmp_path):
    files = FILES[dataset]
    found, truth = files.write(tmp_path)
    keys = [place for place in places(files.content) if place and isinstance(place[-1], str)]
    assert keys
    for place in keys:
        if found.suffix == ".jsonl":
            lines = enumerate(files.content)
            found.write_text("\n".join(with_key_twice(v, _below(place, k)) for k, v in lines))
        else:
            found.write_text(with_key_twice(files.content, place))
        assert f"{place[-1]!r} is there twice in one object" in refused(dataset, found, truth)


def test_a_query_left_out_or_named_twice_is_a_fault(dataset, tmp_path):
    files = FILES[dataset]
    found, truth = files.write(tmp_path)
    content = files.content
    if isinstance(content, list):
        found.write_text(text(found.name, content + content[:1]))
        assert "is there twice" in refused(dataset, found, truth)
    tables = content if dataset in ("tvr", "tvqa-plus") else {"": content}
    for name, table in tables.items():
        if name in ("video2idx", "bbox"):
            continue
        fewer = table[1:] if isinstance(table, list) else dict(list(table.items())[1:])
        found.write_text(text(found.name, {**content, name: fewer} if name else fewer))
        assert "missing" in refused(dataset, found, truth)


@pytest.mark.parametrize("num_places", [6, pytest.param(40, marks=pytest.mark.slow)])
def test_whatever_stands_anywhere_is_scored_or_a_fault_of_the_file(dataset, num_places, tmp_path):
    files = FILES[dataset]
    found, truth = files.write(tmp_path)
    scorer = dataset_scorers(dataset, RetrievalRules(), nms=None, vocabulary=None)[dataset]
    every = list(places(files.content))
    for place in every[:: max(1, len(every) // num_places)]:
        for junk in JUNK:
            content = changed(files.content, place, junk)
            if found.suffix == ".jsonl" and not isinstance(content, list):
                continue
            found.write_text(text(found.name, content))
            try:
                scores = score_predictions(scorer, found, truth, split=None)
            except PredictionError as error:
                assert str(found) in str(error), (place, junk, error)
            else:
                assert "NaN" not in json.dumps(scores), (place, junk)


@pytest.mark.parametrize(
    ("name", "index"),
    [("next-qa", 5), ("vlep", 2), ("violin", 2), ("tvqa", 5), ("msrvtt-mc", 5), ("tvqa-plus", 5)],
)
def test_an_index_that_no_option_has_is_a_fault(tmp_path, name, index):
    files = FILES[name]
    found, truth = files.write(tmp_path)
    place = {
        "next-qa": ("4_0", "prediction"),
        "vlep": (0, "pred_ans"),
        "violin": ("c-0-0",),
        "tvqa-plus": ("ts_answer", "0", 1),
    }.get(name, ("0",))
    for value in (index, -1, True, 1.5, "1"):
        found.write_text(text(found.name, changed(files.content, place, value)))
        said = refused(name, found, truth)
        assert "1 fault in" in said and f"from 0 to {index - 1}, got {value!r}" in said
    found.write_text(text(found.name, changed(files.content, place, index - 1)))
    assert run(name, found, truth).exit_code == 0


def test_the_truth_that_a_file_carries_along_is_no_prediction(tmp_path):
    found, truth = FILES["next-qa"].write(tmp_path)
    for content in ({"4_0": {"answer": 0}}, {"4_0": {"answer": 0}, "4_1": {"answer": 0}}):
        found.write_text(json.dumps({**FILES["next-qa"].content, **content}))
        said = refused("next-qa", found, truth)
        assert "video_qid 4_0 (prediction): expected an option's index from 0 to 4" in said


def test_separators_within_a_text_are_not_line_ends(tmp_path):
    found, truth = FILES["vlep"].write(tmp_path)
    right = run("vlep", found, truth).stdout
    records = [{**record, "note": "a\u2028b\x85c"} for record in FILES["vlep"].content]
    found.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records))
    assert run("vlep", found, truth).stdout == right


def test_two_videos_of_one_index_are_a_fault(tmp_path):
    found, truth = FILES["tvr"].write(tmp_path)
    for indices, said in (({"a": 0, "b": 0}, "b and a have the same"), ({"a": "0", "b": 1}, "'0'")):
        found.write_text(json.dumps({**FILES["tvr"].content, "video2idx": indices}))
        assert said in refused("tvr", found, truth)


@pytest.mark.parametrize("name", ["tacos", "charades-sta", "tvr", "qvhighlights", "tvqa-plus"])
def test_a_score_that_is_no_number_is_a_fault_where_it_does_not_count_too(name, tmp_path):
    files = FILES[name]
    found, truth = files.write(tmp_path)
    scores = [place for place in places(files.content) if _at(files.content, place) == 0.9]
    assert scores
    for value in (float("nan"), float("-inf")):
        content = files.content
        for place in scores:
            content = changed(content, place, value)
        found.write_text(text(found.name, content))
        assert f"{len(scores)} fault" in refused(name, found, truth)


def test_annotations_under_any_of_their_official_names(tmp_path):
    for name, file in (
        ("violin", "violin_annotation.json"),
        ("vlep", "vlep_test_release.jsonl"),
        ("msrvtt-mc", "msrvtt_retrieval_mc_test.jsonl"),
        ("msrvtt-mc", "mc_test.jsonl"),
        ("tvqa", "tvqa_test.jsonl"),
    ):
        folder = tmp_path / file
        folder.mkdir()
        files = FILES[name]
        truth = text(file, files.truth)
        if name == "violin":
            truth = truth.replace("validate", "test")
        (folder / file).write_text(truth)
        found = folder / files.name
        found.write_text(text(files.name, files.content))
        assert run(name, found, folder, "--split", "test").exit_code == 0
        if name != "violin":
            assert "it has no" in refused(name, found, folder, "--split", "train")


def test_a_question_without_an_id_has_the_number_of_its_line(tmp_path):
    files = FILES["msrvtt-mc"]
    found, truth = files.write(tmp_path)
    right = run("msrvtt-mc", found, truth).stdout
    truth.write_text(text(truth.name, [{"video": "v", "answer": 3}] * 2))
    assert run("msrvtt-mc", found, truth).stdout == right
    truth.write_text(text(truth.name, FILES["vlep"].truth))
    assert "expected an object with qid" in run("msrvtt-mc", found, truth).stderr


def test_options_that_change_nothing_are_refused(tmp_path):
    files = FILES["tvqa"].write(tmp_path)
    said = refused("tvqa", *files, "--nms", "0.5", "--ties", "mean")
    assert "--ties, --nms changes nothing" in said
    charades = FILES["charades-sta"].write(tmp_path)
    assert run("charades-sta", *charades, "--nms", "0.5").exit_code == 0
    for beyond in ("nan", "-0.1", "1.5"):
        assert "between 0 and 1" in refused("charades-sta", *charades, "--nms", beyond)
    assert "take --nms" in refused("charades-sta", *charades, "--ties", "mean")


# --- matrices

TEXTS, VIDEOS = np.array(["a#0", "a#1", "b#0"]), np.array(["a", "b"])
SCORES = np.array([[0.9, 0.1], [0.2, 0.3], [0.4, 0.8]])


class Trap:
    """Says so when it is unpickled."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("unpickled",))


@pytest.fixture
def matrix(tmp_path: Path) -> Any:
    truth = tmp_path / "captions.json"
    truth.write_text(json.dumps({"a": ["x", "y"], "b": ["z"]}))

    def score(**arrays: Any) -> Result:
        path = tmp_path / "p.npz"
        given = {"scores": SCORES, "text_ids": TEXTS, "video_ids": VIDEOS} | arrays
        np.savez(path, **{name: value for name, value in given.items() if value is not None})
        return run("msvd", path, truth)

    return score


def test_numbers_of_any_type_and_order_are_scored(matrix):
    right = matrix()
    assert right.exit_code == 0, right.output
    for scores in (SCORES.astype(">f4"), np.asfortranarray(SCORES), (10 * SCORES).astype(np.uint8)):
        assert matrix(scores=scores, resolution=0).stdout == right.stdout
    assert matrix(scores=SCORES.astype(np.float16), resolution=1e-6).stdout == right.stdout
    assert matrix(text_ids=TEXTS.astype(np.bytes_)).stdout == right.stdout


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"scores": SCORES.T}, "the shape (texts, videos) (3, 2), got (2, 3)"),
        ({"scores": SCORES[None]}, "got (1, 3, 2)"),
        ({"scores": SCORES > 0.3}, "expected numbers, got bool"),
        ({"scores": SCORES + 0j}, "expected numbers, got complex128"),
        ({"scores": None}, "expected the arrays scores as well"),
        ({"video_ids": None}, "expected the arrays video_ids as well"),
        ({"text_ids": TEXTS[None]}, "text_ids: expected a list of ids"),
        ({"text_ids": np.arange(3.0)}, "text_ids: expected a list of ids, got float64"),
        ({"scores": np.array([[Trap()] * 2] * 3)}, "it has pickled objects"),
        ({"text_ids": TEXTS.astype(object)}, "it has pickled objects"),
        ({"resolution": np.nan}, "resolution: expected a number of at least 0, got nan"),
        ({"resolution": np.zeros(2)}, "resolution: expected a number of at least 0"),
    ],
)
def test_arrays_that_are_no_scores_are_told(matrix, arrays, said):
    result = matrix(**arrays)
    assert result.exit_code == 2 and said in result.stderr, result.output


def test_bytes_that_are_no_arrays_are_told(tmp_path):
    truth = tmp_path / "captions.json"
    truth.write_text(json.dumps({"a": ["x", "y"], "b": ["z"]}))
    np.savez_compressed(tmp_path / "p.npz", scores=SCORES, text_ids=TEXTS, video_ids=VIDEOS)
    np.save(tmp_path / "p.npy", SCORES)
    rng = np.random.default_rng(0)
    for path in (tmp_path / "p.npz", tmp_path / "p.npy"):
        content = path.read_bytes()
        broken = [b"", b"text", pickle.dumps(Trap()), *(content[:n] for n in range(1, 120, 14))]
        for place in rng.integers(len(content), size=30):
            broken.append(content[:place] + bytes([rng.integers(256)]) + content[place + 1 :])
        for number, bytes_ in enumerate(broken):
            path.write_bytes(bytes_)
            assert run("msvd", path, truth).exit_code in ((2,) if number < 11 else (0, 2))


def test_of_very_many_faults_two_hundred_are_spelled(tmp_path):
    truth = tmp_path / "captions.json"
    truth.write_text(json.dumps({f"v{n}": ["x"] for n in range(500)}))
    np.save(tmp_path / "p.npy", np.full((500, 500), np.nan))
    said = refused("msvd", tmp_path / "p.npy", truth).splitlines()
    assert "250,000 faults" in said[0] and said[-1].strip() == "and 249,800 more"
    assert len(said) == 202
