"""What the official scorers print, to the digit: cases where a plain reading of them goes wrong.

The numbers were compared with the official code's own on random files; these are the small cases.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from score_fixtures import highlight, run, scored, write

from mlalign.data_manifests.cards.spans import suppress
from mlalign.evaluate.official.retrieval import video_to_text_ranks
from mlalign.evaluate.scores.metrics import interpolated_area
from mlalign.evaluate.scores.ranks import ranks_of_correct
from mlalign.extract.cache.ragged import Ragged


def charades(folder: Path, lines: list[str], lengths: dict[str, float] | None = None) -> Path:
    if lengths is not None:
        rows = "".join(f"{video},{seconds}\n" for video, seconds in lengths.items())
        (folder / "Charades_v1_test.csv").write_text("id,length\n" + rows)
    return write(folder / "charades_sta_test.txt", "\n".join(lines))


def windows(*spans: list[float]) -> list[dict[str, Any]]:
    return [{"qid": n, "pred_relevant_windows": [span]} for n, span in enumerate(spans)]


def test_charades_moments_end_with_their_video_where_its_length_is_known(tmp_path: Path) -> None:
    """2D-TAN's loader cuts them; 562 of the 3,720 test moments end beyond their video."""
    found = write(tmp_path / "p.jsonl", windows([0, 10]))
    truth = charades(tmp_path, ["ABC 0.0 20.0##a person sits."])
    uncut = scored("charades-sta", found, truth)
    assert uncut["mIoU"] == 50 and "Charades_v1_test.csv" in uncut["notes"][0]
    charades(tmp_path, [], {"ABC": 10.0})
    charades(tmp_path, ["ABC 0.0 20.0##a person sits."])
    cut = scored("charades-sta", found, truth)
    assert cut["mIoU"] == 100 and "notes" not in cut


def test_a_moment_without_length_is_no_query(tmp_path: Path) -> None:
    lines = ["ABC 0.0 5.0##a person sits.", "ABC 9.0 20.0##a person stands."]
    truth = charades(tmp_path, lines, {"ABC": 9.0})
    for spans in ([[0, 5]], [[0, 5], [9, 10]]):
        found = write(tmp_path / "p.jsonl", windows(*spans))
        assert scored("charades-sta", found, truth)["mIoU"] == 100
    anet = {"v": {"duration": 9.0, "timestamps": [[5, 5], [0, 9]], "sentences": ["x", "y"]}}
    found = write(tmp_path / "q.jsonl", [{"qid": "v_1", "pred_relevant_windows": [[0, 9]]}])
    scores = scored("activitynet-moments", found, write(tmp_path / "a.json", anet))
    assert scores["R@1,IoU=0.7"] == 100


@pytest.mark.parametrize(
    "dataset, video",
    [
        ("activitynet-moments", {"duration": 10.0, "timestamps": [[-1, 12]]}),
        ("tacos", {"fps": 2.0, "num_frames": 20, "timestamps": [[0, 24]]}),
    ],
)
def test_moments_of_the_json_files_are_cut_to_their_video(
    tmp_path: Path, dataset: str, video: dict[str, Any]
) -> None:
    truth = write(tmp_path / "a.json", {"v": {**video, "sentences": ["x"]}})
    found = write(tmp_path / "p.jsonl", [{"qid": "v_0", "pred_relevant_windows": [[0, 10]]}])
    assert scored(dataset, found, truth)["mIoU"] == 100


def test_an_overlap_of_exactly_half_is_no_hit_whatever_the_bits(tmp_path: Path) -> None:
    """Over the union 0.7 / 1.4 is 0.5000000000000001 here; 2D-TAN divides by the hull."""
    truth = charades(tmp_path, ["ABC 0.3 1.7##a person sits."], {"ABC": 9.0})
    found = write(tmp_path / "p.jsonl", windows([0.3, 1.0]))
    assert scored("charades-sta", found, truth)["R@1,IoU=0.5"] == 0


def test_of_windows_without_length_suppression_keeps_one() -> None:
    spans = np.array([[3.0, 3.0], [0.0, 4.0], [9.0, 9.0], [3.0, 3.0], [5.0, 8.0]])
    assert suppress(spans, threshold=0.5).tolist() == [0, 1, 4]


def test_next_qa_rounds_counts_and_not_shares(tmp_path: Path) -> None:
    """93 of 160 are 58.125 %, which prints as 58.12; 100 times the share prints as 58.13."""
    rows = ["video,qid,type,answer", *(f"4,{q},CW,{int(q >= 93)}" for q in range(160))]
    truth = write(tmp_path / "val.csv", "\n".join(rows))
    found = {f"4_{q}": {"prediction": 0, "answer": 0} for q in range(160)}
    assert scored("next-qa", write(tmp_path / "p.json", found), truth)["Acc"] == 58.12


def test_a_window_that_ends_before_it_starts_meets_nothing(tmp_path: Path) -> None:
    """Lengths of 8 and -8: the official scorer divides 0 by 0, and counts that as a hit."""
    truth = write(tmp_path / "a.jsonl", [highlight(1, [[0, 8]])])
    found = [{"qid": 1, "pred_relevant_windows": [[50, 42, 0.9]]}]
    scores = scored("qvhighlights", write(tmp_path / "p.jsonl", found), truth)
    assert scores["brief"]["MR-full-mAP"] == 0 and scores["brief"]["MR-full-R1@0.5"] == 0


def test_moments_are_averaged_in_the_order_of_the_predictions(tmp_path: Path) -> None:
    """Precisions of 1, 1/8, 1/10 and 1/10 are 33.125 % on average; which way that is rounded hangs
    on the last bit of their sum."""
    places = {1: 1, 2: 8, 3: 10, 4: 10}
    found = [
        {
            "qid": qid,
            "pred_relevant_windows": [[80, 88, 2 - k / 99] for k in range(1, place)] + [[0, 8, 0]],
        }
        for qid, place in places.items()
    ]
    truth = write(tmp_path / "a.jsonl", [highlight(qid, [[0, 8]]) for qid in (4, 3, 2, 1)])
    forwards = scored("qvhighlights", write(tmp_path / "p.jsonl", found), truth)
    backwards = scored("qvhighlights", write(tmp_path / "q.jsonl", found[::-1]), truth)
    assert forwards["brief"]["MR-full-mAP@0.5"] == 33.13
    assert backwards["brief"]["MR-full-mAP@0.5"] == 33.12


def test_the_lower_median_is_of_text_to_video_only(tmp_path: Path) -> None:
    """CLIP4Clip takes torch's median of the texts' ranks and numpy's of the videos'."""
    truth = write(tmp_path / "captions.json", {"a": ["x"], "b": ["y"]})
    np.save(tmp_path / "p.npy", np.array([[0.9, 0.1], [0.95, 0.5]]))
    by_texts = scored("msvd", tmp_path / "p.npy", truth, "--lower-median")
    assert by_texts["t2v"]["MdR"] == 1 and by_texts["v2t"]["MdR"] == 1.5


def test_at_their_mean_ties_with_own_captions_count_and_half_a_rank_is_not_first() -> None:
    """CE: a caption that a video has twice ranks at 0.5, and R@1 wants 0."""
    owner, scores = np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.9, 0.2], [0.3, 0.8]])
    found = video_to_text_ranks(scores, owner, "captions", ties="mean")
    assert found.ranks.tolist() == [0.5, 0] and not found.tied.any()
    blockwise = ranks_of_correct(scores.T, Ragged.of([[0, 1], [2]]), ties="mean")
    assert blockwise.ranks.tolist() == [0.5, 0] and not blockwise.tied.any()
    against = video_to_text_ranks(scores, owner, "captions", ties="against")
    assert against.ranks.tolist() == [0, 0]


def test_half_a_rank_is_no_recall_at_1_in_a_matrix(tmp_path: Path) -> None:
    truth = write(tmp_path / "captions.json", {"a": ["x"], "b": ["y"]})
    np.save(tmp_path / "p.npy", np.array([[0.9, 0.9], [0.1, 0.5]]))
    assert scored("msvd", tmp_path / "p.npy", truth, "--ties", "mean")["t2v"]["R@1"] == 50


def boxes_file(folder: Path) -> tuple[Path, Path]:
    def box(word: str, left: int) -> dict[str, Any]:
        return {"label": word, "left": left, "top": 0, "width": 9, "height": 9}

    truth = [
        {
            "qid": 1,
            "vid_name": "v",
            "answer_idx": "3",
            "ts": [0, 10],
            "bbox": {"6": [box("Cup", 0), box("yak", 50)], "9": [box("dog", 0), box("cup", 0)]},
        }
    ]
    found = {
        "ts_answer": {"1": [[0, 10], 3]},
        "bbox": {
            "v_1_00006": [["cup", 0.5, [0, 0, 9, 9]]],
            "v_1_00009": [["cup", 0.5, [90, 0, 99, 9]], ["Dog", 0.5, [0, 0, 9, 9]]],
        },
    }
    return write(folder / "p.json", found), write(folder / "a.json", truth)


def test_tvqa_plus_counts_the_words_of_the_scorers_vocabulary(tmp_path: Path) -> None:
    """Equal scores stand in the reverse of the pictures' order: the wrong cup of the second one is
    first, so its AP is 1/4. A predicted `Dog` is no word of the scorer's, and yak not known."""
    files = boxes_file(tmp_path)
    assert scored("tvqa-plus", *files)["overall_map"] == pytest.approx(0.25 / 3)
    write(tmp_path / "word2idx.json", {"<pad>": 0, "<unk>": 1, "dog": 2, "cup": 3})
    assert scored("tvqa-plus", *files)["overall_map"] == 0.125


def test_spans_are_averaged_in_the_order_of_the_ids_text(tmp_path: Path) -> None:
    """The numbers are printed with all their digits: 0.1 + 0.2 + 0.3 is not 0.2 + 0.3 + 0.1."""
    ends = {"9": 1, "10": 2, "11": 3}
    common = {"vid_name": "v", "answer_idx": "0", "ts": [0, 10], "bbox": {}}
    truth = write(tmp_path / "a.json", [{"qid": int(name), **common} for name in ends])
    found = {"ts_answer": {name: [[0, end], 0] for name, end in ends.items()}}
    assert scored("tvqa-plus", write(tmp_path / "p.json", found), truth)["miou"] == 0.6 / 3


def test_the_area_is_summed_by_steps_of_recall() -> None:
    """A third of the precisions 1 and 2 / 3; divided by 3 at the end it has another last bit."""
    assert interpolated_area(np.array([True, False, True]), 3) == 0.5555555555555556


def test_lengths_that_are_none_are_told(tmp_path: Path) -> None:
    truth = charades(tmp_path, ["ABC 0.0 5.0##a person sits."])
    (tmp_path / "Charades_v1_test.csv").write_text("id,length\nABC,long\n")
    found = write(tmp_path / "p.jsonl", windows([0, 5]))
    result = run("charades-sta", found, truth)
    assert result.exit_code == 2 and "expected seconds, got 'long'" in result.stderr
    anet = {"v": {"duration": "9", "timestamps": [[0, 9]], "sentences": ["x"]}}
    result = run("activitynet-moments", found, write(tmp_path / "a.json", anet))
    assert result.exit_code == 2 and "video v, duration: expected a number > 0" in result.stderr
