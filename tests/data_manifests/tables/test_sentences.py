"""Sentences: where they end, and that no word is lost."""

from __future__ import annotations

import random

import pytest

from mlalign.data_manifests.scenes.plan import plan_clip
from mlalign.data_manifests.scenes.words import captions
from mlalign.data_manifests.tables.sentences import split_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("a dog runs", ["a dog runs"]),
        ("A dog runs. It barks!", ["A dog runs.", "It barks!"]),
        ("a red ring grows. a blue square shrinks", ["a red ring grows.", "a blue square shrinks"]),
        ("Dr. Smith opens the door. He waves.", ["Dr. Smith opens the door.", "He waves."]),
        ("He jumps 3.5 m. Then he rests.", ["He jumps 3.5 m.", "Then he rests."]),
        (
            "Fruit, e.g. apples, is cut. It is served.",
            ["Fruit, e.g. apples, is cut.", "It is served."],
        ),
        ("J. F. Kennedy speaks. People clap.", ["J. F. Kennedy speaks.", "People clap."]),
        ("What is it? A cat... It sleeps.", ["What is it?", "A cat...", "It sleeps."]),
        ('She says "stop." He stops.', ['She says "stop."', "He stops."]),
        ("Wash it\n- cut it\n\nfry it.", ["Wash it", "- cut it", "fry it."]),
        ("1. Wash the rice. 2. Boil it.", ["1. Wash the rice.", "2. Boil it."]),
        ("犬が走る。猫が寝る。", ["犬が走る。", "猫が寝る。"]),
        ("Wow! !! Nice.", ["Wow! !!", "Nice."]),
        ("...", ["..."]),
        ("", [""]),
        ("  two   blanks.  ", ["two blanks."]),
    ],
)
def test_sentences_end_where_a_reader_ends_them(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


@pytest.mark.parametrize("seed", range(30))
def test_no_word_is_lost_and_splitting_again_changes_nothing(seed: int) -> None:
    rng = random.Random(seed)
    marks = [" ", " ", ". ", "! ", "? ", "\n", "。", "... ", ".", ", ", '." ', " (", ") "]
    words = ["a", "dog", "Mr", "3", "runs", "e.g", "犬", "I", "Paris", "-"]
    text = "".join(rng.choice(words) + rng.choice(marks) for _ in range(rng.randrange(1, 40)))
    sentences = split_sentences(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentences)
    for sentence in sentences:
        assert split_sentences(sentence) == [sentence]


def test_the_paragraphs_of_the_scenes_split_into_their_captions() -> None:
    for seed in range(50):
        rng = random.Random(seed)
        sentences = captions(plan_clip(seed=0, index=seed, split="train"), rng=rng)
        found = split_sentences(". ".join(sentences))
        assert [sentence.rstrip(".") for sentence in found] == sentences
