"""The language of the pocket world: subjects, captions, view words and the hold-out list.

A caption is `a [surface] <colour> <kind>`, without a word for "plain" and without a colour for golden subjects: "a red
mug", "a striped blue house", "a golden duck". View words follow a comma, as in threestudio's prompt processor, and after
them the words of the camera (models/camera_words.py).
"""

import json
import random
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from latent_prior import OptionError
from latent_prior.models.camera_words import Angles, CameraWords
from latent_prior.pocket.palette import COLOURS, GOLD, SURFACES
from latent_prior.pocket.solids import KINDS

HOLDOUT_FILE = Path(__file__).with_name("holdout.json")
ARTICLES = ("a", "an", "the")
VIEWS = ("side view", "front view", "back view", "overhead view")
CAMERAS = CameraWords(azimuth=Angles(-180, 165, 15), elevation=Angles(-20, 90, 10))


@dataclass(frozen=True)
class Subject:
    """A subject of the pocket world. Golden subjects have the colour "golden"."""

    kind: str
    colour: str
    surface: str = "plain"

    @property
    def rgb(self) -> tuple[float, float, float]:
        return GOLD if self.surface == "golden" else COLOURS[self.colour]

    @property
    def caption(self) -> str:
        words = [self.kind] if self.surface == "golden" else [self.colour, self.kind]
        if self.surface != "plain":
            words.insert(0, self.surface)
        return ("an " if words[0][0] in "aeiou" else "a ") + " ".join(words)


def parse(prompt: str) -> Subject:
    """The subject named by a prompt, in any case: `[a | an | the] [surface] <colour> <kind>[, <view words>]`.

    Only whole words in this order are accepted: "a red boathouse" is not a house, "a blue glass mug" is not a mug.
    Raises OptionError if the prompt names no subject.
    """
    text, *views = (" ".join(part.split()) for part in prompt.lower().split(","))
    article, _, rest = text.partition(" ")
    subject = _by_words().get(rest if article in ARTICLES else text)
    if subject is None or not set(views) <= set(VIEWS):
        raise OptionError.because(
            f"the pocket world has no subject for the prompt {prompt!r}: expected `a [surface] <colour> <kind>` with "
            f"surface striped, checkered or golden (golden takes no colour), colour one of {', '.join(COLOURS)}, kind "
            f"one of {', '.join(KINDS)}"
        )
    return subject


@lru_cache(maxsize=1)
def _by_words() -> dict[str, Subject]:
    """All subjects, by caption without the article."""
    return {subject.caption.partition(" ")[2]: subject for subject in every_subject()}


def view_word(elevation: float, azimuth: float) -> str:
    """The view words for a camera (degrees), with threestudio's default thresholds of 45, 45 and 60 degrees."""
    azimuth = (azimuth + 180.0) % 360.0 - 180.0
    if elevation > 60.0:
        return "overhead view"
    if abs(azimuth) < 45.0:
        return "front view"
    if abs(azimuth) > 135.0:
        return "back view"
    return "side view"


def every_subject() -> list[Subject]:
    """All subjects: each colour with each plain, striped and checkered kind, and each golden kind."""
    painted = [Subject(k, c, s) for k in KINDS for s in SURFACES[:3] for c in COLOURS]
    return painted + [Subject(k, "golden", "golden") for k in KINDS]


@lru_cache(maxsize=1)
def holdout() -> tuple[frozenset[tuple[str, str]], frozenset[tuple[str, str]]]:
    """The (colour, kind) and (surface, kind) pairs that no training picture shows."""
    pairs = json.loads(HOLDOUT_FILE.read_text())
    return frozenset(map(tuple, pairs["colour_kind"])), frozenset(map(tuple, pairs["surface_kind"]))


def is_held_out(subject: Subject) -> bool:
    """Whether the prior never saw this subject's colour or surface on its kind."""
    colour_kind, surface_kind = holdout()
    return (subject.colour, subject.kind) in colour_kind or (subject.surface, subject.kind) in surface_kind


def draw_holdout(seed: int = 2302) -> dict[str, list[list[str]]]:
    """Draw the hold-out list: two colours for every kind, each colour equally often, and one surface for nine kinds."""
    rng = random.Random(seed)
    kinds = list(KINDS)
    rng.shuffle(kinds)
    colours = list(COLOURS)
    colour_kind = []
    for _ in range(2):
        deck = colours * (len(kinds) // len(colours))
        while True:  # a kind must not lose the same colour twice
            rng.shuffle(deck)
            drawn = [[c, k] for c, k in zip(deck, kinds, strict=True)]
            if not any(pair in colour_kind for pair in drawn):
                break
        colour_kind += drawn
    surface_kind = [[s, k] for s, k in zip(list(SURFACES[1:]) * 3, kinds[:9], strict=True)]
    return {"colour_kind": sorted(colour_kind), "surface_kind": sorted(surface_kind)}
