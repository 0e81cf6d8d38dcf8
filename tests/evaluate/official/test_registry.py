"""Official prediction files: hand-worked numbers, the peers' bugs, and every fault at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from score_fixtures import highlight, run, scored, write

from mlalign.data_manifests.cards.scoring_rules import Chunks
from mlalign.evaluate.official.answers import next_qa_type, vocabulary_coverage
from mlalign.evaluate.official.moments import annotator_values


def tvr_query(number: int, video: str, kind: str, ts: Any) -> dict[str, Any]:
    return {"desc_id": number, "vid_name": video, "type": kind, "ts": ts}


def test_tvr_in_the_corpus_in_the_video_and_of_videos(tmp_path: Path) -> None:
    truth = [tvr_query(1, "a", "v", [0, 10]), tvr_query(2, "b", "t", [5, 10])]
    found = [
        {"desc_id": 1, "predictions": [[1, 0, 10, 9], [0, 0, 5, 8], [0, 0, 10, 1]]},
        {"desc_id": 2, "predictions": [[1, 0, 1, 1]]},
    ]
    content = {"video2idx": {"a": 0, "b": 1}, "VCMR": found, "SVMR": found, "VR": found}
    scores = scored("tvr", write(tmp_path / "p.json", content), write(tmp_path / "a.jsonl", truth))
    # IoU of [0, 5] is exactly 0.5, which counts; the wrong video's row is dropped in SVMR only.
    assert scores["VCMR"]["0.5-r1"] == 0 and scores["VCMR"]["0.5-r5"] == 50
    assert scores["SVMR"]["0.5-r1"] == 50 and scores["SVMR"]["0.7-r1"] == 0
    assert scores["VR"] == {"r1": 50, "r5": 100, "r10": 100, "r100": 100}
    assert scores["SVMR_by_type"]["v-0.5-r1"] == 100
    assert scores["VR_by_type"]["desc_type_ratio"] == "v 50.0 t 50.0 vt 0.0"


def test_only_the_first_hundred_predictions_count(tmp_path: Path) -> None:
    late = [[1, 0, 1, 0]] * 100 + [[0, 0, 10, 0]]
    content = {"video2idx": {"a": 0}, "VCMR": [{"desc_id": 1, "predictions": late}]}
    truth = write(tmp_path / "a.jsonl", [tvr_query(1, "a", "v", [0, 10])])
    assert scored("tvr", write(tmp_path / "p.json", content), truth)["VCMR"]["0.5-r100"] == 0


def test_didemo_moments_need_two_annotators(tmp_path: Path) -> None:
    truth = [tvr_query(1, "a", "v", [[0, 5], [10, 15], [10, 15], [20, 25]])]
    for span, right in (([0, 5], 0), ([10, 15], 100)):
        found = [{"desc_id": 1, "predictions": [[0, *span, 1]]}]
        content = {"video2idx": {"a": 0}, "VCMR": found}
        files = write(tmp_path / "p.json", content), write(tmp_path / "a.jsonl", truth)
        assert scored("tvr", *files)["VCMR"]["0.7-r1"] == right


def test_qvhighlights_by_hand(tmp_path: Path) -> None:
    truth = [highlight(1, [[0, 8]]), highlight(2, [[0, 20], [40, 60]])]
    found = [
        {
            "qid": 1,
            "pred_relevant_windows": [[0, 4, 0.9], [0, 8, 0.5]],
            "pred_saliency_scores": [0, 5, 4, 1, 1],
        },
        {
            "qid": 2,
            "pred_relevant_windows": [[0, 20, 0.9]],
            "pred_saliency_scores": [9, 5, 4, 1, 1],
        },
    ]
    files = write(tmp_path / "p.jsonl", found), write(tmp_path / "a.jsonl", truth)
    scores = scored("qvhighlights", *files)
    # Query 1: IoU .5 first, so AP 1 at .5 and 1/2 above; query 2: 1/2 at all.
    assert scores["brief"]["MR-full-mAP@0.5"] == 75 and scores["brief"]["MR-full-mAP@0.75"] == 50
    assert scores["brief"]["MR-full-mAP"] == 52.5 and scores["brief"]["MR-short-mAP"] == 55
    assert scores["brief"]["MR-full-R1@0.5"] == 100 and scores["brief"]["MR-full-R1@0.7"] == 50
    assert scores["brief"]["MR-middle-mAP"] == 50 and "long" not in scores
    assert scores["HL-min-VeryGood"] == {"HL-mAP": 25, "HL-Hit1": 50}


def test_all_faults_of_a_file_are_listed_together(tmp_path: Path) -> None:
    truth = write(tmp_path / "a.jsonl", [highlight(q, [[0, 8]]) for q in (1, 2, 3, 4)])
    windows = [[0, 8, 1.0]]
    found = [
        {"qid": 1, "pred_relevant_windows": [[0, 8, float("nan")]]},
        {"qid": 2, "pred_relevant_windows": [[0, 8]]},
        {"qid": 2, "pred_relevant_windows": windows},
        {"qid": 3, "pred_relevant_windows": windows, "pred_saliency_scores": ["x"] * 5},
        {"qid": 9, "pred_relevant_windows": windows},
    ]
    result = run("qvhighlights", write(tmp_path / "p.jsonl", found), truth)
    assert result.exit_code == 2
    wanted = ("qid 4: missing", "qid 9: unknown", "qid 2 is there twice", "nan", "got 'x'")
    for said in (*wanted, "qid 2, pred_relevant_windows, item 1: expected 3 finite numbers"):
        assert said in result.stderr, result.stderr


def test_too_few_saliency_scores_are_a_fault(tmp_path: Path) -> None:
    truth = write(tmp_path / "a.jsonl", [highlight(1, [[0, 8]])])
    found = write(tmp_path / "p.jsonl", [{"qid": 1, "pred_saliency_scores": [1.0]}])
    result = run("qvhighlights", found, truth)
    assert result.exit_code == 2 and "expected 5 scores, got 1" in result.stderr


def test_didemo_takes_the_best_three_annotators(tmp_path: Path) -> None:
    ranking = [(0, 0), *(moment for moment in Chunks().candidates() if moment != (0, 0))]
    assert annotator_values(ranking, [[0, 0]] * 3 + [[5, 5]], best=3) == (1.0, 1.0)
    assert annotator_values(ranking, [[0, 0], [0, 0], [0, 1], [5, 5]], best=3) == (4 / 3, 2.5 / 3)
    truth = [{"annotation_id": 7, "times": [[0, 0], [0, 0], [0, 1], [5, 5]]}]
    files = write(tmp_path / "p.json", [ranking]), write(tmp_path / "a.json", truth)
    assert scored("didemo", *files) == {"rank@1": 0, "rank@5": 1, "mIoU": 0.833333}
    assert run("didemo", write(tmp_path / "q.json", [ranking[:5]]), files[1]).exit_code == 2


def test_charades_needs_more_than_the_threshold(tmp_path: Path) -> None:
    truth = tmp_path / "charades_sta_test.txt"
    truth.write_text("ABC 0.0 10.0##a person sits.\nABC 2.0 4.0##a person stands.")
    found = [
        {"qid": 0, "pred_relevant_windows": [[0, 5, 1]]},
        {"qid": 1, "pred_relevant_windows": [[9, 10], [9, 11], [2, 4]]},
    ]
    scores = scored("charades-sta", write(tmp_path / "p.jsonl", found), truth)
    assert scores["R@1,IoU=0.5"] == 0 and scores["R@1,IoU=0.3"] == 50
    assert scores["R@5,IoU=0.7"] == 50 and scores["mIoU"] == 25


def test_next_qa_counts_previous_and_next_together(tmp_path: Path) -> None:
    rows = ["video,qid,type,answer", "4,1,TP,0", "4,2,TN,1", "4,3,CW,2"]
    truth = write(tmp_path / "val.csv", "\n".join(rows))
    found = {f"4_{q}": {"prediction": 0, "answer": 0} for q in (1, 2, 3)}
    scores = scored("next-qa", write(tmp_path / "p.json", found), tmp_path)
    assert scores == {"CW": 0, "TN": 50, "C": 0, "T": 50, "Acc": 33.33}
    assert next_qa_type("TP") == "TN" and truth.exists()


def test_activitynet_qa_free_divides_by_the_free_questions(tmp_path: Path) -> None:
    """The official slice takes the counts in order of appearance: here 1 of 2, not 1 of 3."""
    kinds = [3, 0, 8, 8, 1, 2]
    truth = [{"question_id": f"q{n}", "type": t, "answer": "no"} for n, t in enumerate(kinds)]
    answers = ["no", *["x"] * 5]
    found = [{"question_id": f"q{n}", "answer": a} for n, a in enumerate(answers)]
    files = write(tmp_path / "p.json", found), write(tmp_path / "a.json", truth)
    scores = scored("activitynet-qa", *files)
    assert scores["Free"] == 0.3333 and scores["All"] == 0.1667 and scores["Yes/No"] == 1


@pytest.mark.parametrize("key", ["pred_ans", "pre_ans"])
def test_vlep_takes_the_documented_and_the_shipped_key(tmp_path: Path, key: str) -> None:
    truth = [{"example_id": n, "answer": n % 2} for n in range(3)]
    found = [{"example_id": n, key: 0} for n in range(3)]
    files = write(tmp_path / "p.jsonl", found), write(tmp_path / "a.jsonl", truth)
    assert scored("vlep", *files) == {"qa_acc": 66.67}
    broken = write(tmp_path / "q.jsonl", [{**found[0], key: "0"}, {"example_id": 1}, found[2]])
    result = run("vlep", broken, files[1])
    assert result.exit_code == 2 and "2 faults" in result.stderr


def test_answers_out_of_the_vocabulary_are_wrong_and_counted(tmp_path: Path) -> None:
    truth = [
        {"id": 1, "question": "who sings?", "answer": "man"},
        {"id": 2, "question": "what is it?", "answer": "yak"},
    ]
    files = write(tmp_path / "p.json", {"1": "man", "2": "man"}), write(tmp_path / "a.json", truth)
    words = write(tmp_path / "words.txt", "man\nwoman")
    scores = scored("msvd-qa", *files, "--vocabulary", str(words))
    assert scores == {"what": 0, "who": 100, "Acc": 50, "vocabulary coverage": 50}
    assert vocabulary_coverage(["a", "b", "b", "c"], ["b"]) == 0.5


def test_tvqa_plus_answers_spans_and_boxes(tmp_path: Path) -> None:
    box = {"label": "Cup", "left": 0, "top": 0, "width": 9, "height": 9}
    truth = [
        {"qid": 1, "vid_name": "v", "answer_idx": "3", "ts": [0, 10], "bbox": {"6": [box]}},
        {"qid": 2, "vid_name": "v", "answer_idx": "1", "ts": [4, 4], "bbox": {}},
    ]
    found = {
        "ts_answer": {"1": [[0, 5], 3], "2": [[4, 4], 1]},
        "bbox": {"v_1_00006": [["cup", 0.9, [0, 0, 9, 9]]]},
    }
    files = write(tmp_path / "p.json", found), write(tmp_path / "a.json", truth)
    joint = {"qa_acc": 1.0, "miou": 0.25, "ans_span_joint_acc@.5": 0.5, "overall_map": 1.0}
    assert scored("tvqa-plus", *files) == joint


def test_a_matrix_is_scored_whatever_the_order_of_its_ids(tmp_path: Path) -> None:
    truth = write(tmp_path / "captions.json", {"a": ["x", "y"], "b": ["z"]})
    scores = np.array([[0.9, 0.1], [0.2, 0.3], [0.4, 0.8]])
    np.save(tmp_path / "p.npy", scores)
    ids = {"text_ids": np.array(["b#0", "a#0", "a#1"]), "video_ids": np.array(["b", "a"])}
    np.savez(tmp_path / "p.npz", scores=scores[[2, 0, 1]][:, [1, 0]], **ids)
    found = scored("msvd", tmp_path / "p.npy", truth)
    assert found == scored("msvd", tmp_path / "p.npz", truth)
    assert found["t2v"]["R@1"] == 66.67 and found["v2t"]["R@1"] == 100 and found["Rsum"] == 566.67


def test_a_broken_matrix_is_told_in_full(tmp_path: Path) -> None:
    truth = write(tmp_path / "captions.json", {"a": ["x"], "b": ["z"]})
    ids = {"text_ids": np.array(["a#0", "a#0"]), "video_ids": np.array(["a", "c"])}
    np.savez(tmp_path / "p.npz", scores=np.array([[1.0, np.nan], [0, 0]]), **ids)
    result = run("msvd", tmp_path / "p.npz", truth)
    assert result.exit_code == 2
    for said in ("text b#0: missing", "video c: unknown", "a#0 is there twice", "a#0, c is nan"):
        assert said in result.stderr


def test_an_unknown_dataset_names_those_there_are(tmp_path: Path) -> None:
    result = run("imagenet", tmp_path, tmp_path)
    assert result.exit_code == 2 and "qvhighlights" in result.stderr
