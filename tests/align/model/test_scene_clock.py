"""Time in scenes: counts of changes, against loops."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from mlalign.align.model.scene_clock import SceneClock, previous_cosines


def test_scenes_passed_are_the_sum_of_soft_changes_and_padding_adds_none():
    torch.manual_seed(0)
    segments = F.normalize(torch.randn(3, 6, 4).double(), dim=-1)
    counts = [6, 1, 4]
    present = torch.arange(6) < torch.tensor(counts)[:, None]
    segments = segments * present[:, :, None]
    clock = SceneClock().double()
    passed, previous = clock(segments, present), previous_cosines(segments)
    for clip, count in enumerate(counts):
        total = 0.0
        assert passed[clip, 0] == previous[clip, 0] == 0
        for place in range(1, 6):
            if place < count:
                cosine = (segments[clip, place] @ segments[clip, place - 1]).item()
                total += 1 / (1 + math.exp(-10 * (0.7 - cosine)))
                assert math.isclose(previous[clip, place].item(), cosine)
            assert math.isclose(passed[clip, place].item(), total, rel_tol=1e-6)


def test_a_scene_of_several_equal_segments_is_one_step():
    scenes = torch.eye(4)[[0, 0, 1, 1, 1, 2]][None]
    passed = SceneClock()(scenes, torch.ones(1, 6, dtype=torch.bool))[0]
    assert torch.allclose(passed, torch.tensor([0.0, 0, 1, 1, 1, 2]), atol=0.2)
