"""Kinds of answers that somebody judged, from which a training may learn."""

from typing import Literal

Judged = Literal["pairs", "thumbs"]  # as files have them
