"""Summary of an import, as text or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..planning.progress import printable

MAX_NAMES: Final = 10
"""Names in a line for a person."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportSummary:
    """What an import did, and what the cache now has of the manifest."""

    cache: str
    clips: dict[str, int]
    """Clips of the manifest in the cache by status: ok, partial, failed."""
    new_clips: int
    new_texts: int
    new_questions: int
    seconds: float
    failures: dict[str, str]
    """clip_id to reason, of every failed clip of the manifest."""
    unused: list[str]
    """Keys of the source that no clip of the manifest has."""
    texts_without_features: list[str]
    """Text ids; empty where no text features were given."""
    text_failures: dict[str, str]
    """text_id to reason, of features that cannot be used."""
    num_questions: int
    """Of the manifest."""
    has_questions: bool
    """Whether features of questions were given."""
    questions_without_features: list[str]
    """Question ids, also where options alone lack some; empty where none were given."""
    question_failures: dict[str, str]
    """question_id to reason, of features that cannot be used."""
    problems: list[str]
    """Files of the sources that could not be looked through."""

    @property
    def has_failed(self) -> bool:
        texts = self.texts_without_features or self.text_failures
        questions = self.questions_without_features or self.question_failures
        return bool(self.failures or texts or questions or self.problems)

    def lines(self) -> list[str]:
        """For a person, safe to print; the summary is the last one."""
        lines = [f"problem: {problem}" for problem in self.problems]
        lines += _names_line("features without a clip", self.unused)
        lines += _names_line("texts without features", self.texts_without_features)
        lines += _names_line(
            "texts failed", [f"{name}: {reason}" for name, reason in self.text_failures.items()]
        )
        lines += _names_line("questions without features", self.questions_without_features)
        lines += _names_line(
            "questions failed",
            [f"{name}: {reason}" for name, reason in self.question_failures.items()],
        )
        if self.num_questions and not self.has_questions:
            lines.append(f"{self.num_questions} questions have no features: none were given")
        lines.append(
            f"{sum(self.clips.values())} clips: {self.clips['ok']} ok, "
            f"{self.clips['partial']} partial, {self.clips['failed']} failed; "
            f"new: {self.new_clips} clips, {self.new_texts} texts"
            + (f", {self.new_questions} questions" if self.has_questions else "")
            + f" in {self.seconds:.1f} s -> "
            f"{self.cache}"
        )
        return [printable(line) for line in lines]


def first_names(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def _names_line(what: str, names: Sequence[str]) -> list[str]:
    return [f"{len(names)} {what}: {first_names(names)}"] if names else []
