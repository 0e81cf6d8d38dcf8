"""Captions of the scenes of a procedural clip, and questions about them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from .plan import PLACES_OF_MOTION, RADIUS_PIXELS, Scene, allowed_pairs

ORDINALS: Final = ("first", "second", "third", "fourth", "fifth", "sixth")
NUMBERS: Final = ("zero", "one", "two", "three", "four", "five", "six")


def caption(scene: Scene, *, wording: int) -> str:
    """The main object of a scene, whole, in one of three wordings.

    At most 11 words and commas: six of them fit into the 77 tokens of CLIP's text tower.
    """
    thing, done = scene.name, f"{scene.motion} {scene.place}"
    match wording:
        case 0:
            return f"a {thing} {done}"
        case 1:
            return f"{scene.place}, a {thing} {scene.motion}"
        case _:
            article = "an" if scene.colour == "orange" else "a"
            return f"{article} {scene.colour} {scene.shape}, {scene.size}, {done}"


def captions(scenes: Sequence[Scene], *, rng: random.Random) -> list[str]:
    """One caption for each scene."""
    return [caption(scene, wording=rng.randrange(3)) for scene in scenes]


def questions(scenes: Sequence[Scene], *, split: str, rng: random.Random) -> list[dict[str, Any]]:
    """Two multiple-choice and two open-ended questions, each with one right answer in the clip.

    The rows lack question_id, clip_id, split and span. They are unambiguous because no two
    objects of a clip share colour and shape, and the two of a scene share neither.
    """
    rows = [_order(scenes, split=split, rng=rng), _motion(scenes, rng=rng)]
    open_ended: list[Callable[..., dict[str, Any]]] = [_colour, _shape, _background, _count]
    rows += [ask(scenes, rng=rng) for ask in rng.sample(open_ended, 2)]
    return rows


def _order(scenes: Sequence[Scene], *, split: str, rng: random.Random) -> dict[str, Any]:
    """What comes right after (or before) an object: among others of the clip, and strangers."""
    first = rng.randrange(len(scenes) - 1)
    given, answer, word = scenes[first], scenes[first + 1], "after"
    if rng.random() < 0.5:
        given, answer, word = answer, given, "before"
    wrong = [f"the {s.name}" for s in scenes if s is not given and s is not answer]
    rng.shuffle(wrong)
    shown = {pair for s in scenes for pair in ((s.colour, s.shape), s.other)}
    strangers = [pair for pair in allowed_pairs(split) if pair not in shown]
    for colour, shape in rng.sample(strangers, 3):
        wrong.append(f"the {rng.choice(list(RADIUS_PIXELS))} {colour} {shape}")
    return _multiple_choice(
        f"what comes right {word} the {given.name}?",
        right=f"the {answer.name}",
        wrong=wrong[: rng.randint(3, 4)],
        kind_of_question="order",
        rng=rng,
    )


def _motion(scenes: Sequence[Scene], *, rng: random.Random) -> dict[str, Any]:
    scene = rng.choice(scenes)
    wrong = [motion for motion in PLACES_OF_MOTION if motion != scene.motion]
    return _multiple_choice(
        f"what does the {scene.name} do?",
        right=f"it {scene.motion}",
        wrong=[f"it {motion}" for motion in rng.sample(wrong, 3)],
        kind_of_question="motion",
        rng=rng,
    )


def _multiple_choice(
    question: str, *, right: str, wrong: list[str], kind_of_question: str, rng: random.Random
) -> dict[str, Any]:
    options = [right, *wrong]
    rng.shuffle(options)
    return {
        "kind": "multiple_choice",
        "question": question,
        "options": options,
        "answer_index": options.index(right),
        "answer": right,
        "type": kind_of_question,
    }


def _open_ended(question: str, answer: str, kind_of_question: str) -> dict[str, Any]:
    return {
        "kind": "open_ended",
        "question": question,
        "answer": answer,
        "type": kind_of_question,
    }


def _colour(scenes: Sequence[Scene], *, rng: random.Random) -> dict[str, Any]:
    index = rng.randrange(len(scenes))
    scene = scenes[index]
    question = f"which colour is the {scene.shape} in the {ORDINALS[index]} scene?"
    return _open_ended(question, scene.colour, "colour")


def _shape(scenes: Sequence[Scene], *, rng: random.Random) -> dict[str, Any]:
    index = rng.randrange(len(scenes))
    scene = scenes[index]
    question = f"which shape is {scene.colour} in the {ORDINALS[index]} scene?"
    return _open_ended(question, scene.shape, "shape")


def _background(scenes: Sequence[Scene], *, rng: random.Random) -> dict[str, Any]:
    index = rng.randrange(len(scenes))
    question = f"which colour is the background in the {ORDINALS[index]} scene?"
    return _open_ended(question, scenes[index].background, "background")


def _count(scenes: Sequence[Scene], *, rng: random.Random) -> dict[str, Any]:
    return _open_ended("how many scenes are there?", NUMBERS[len(scenes)], "count")
