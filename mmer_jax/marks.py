"""Marks of results that reports read: written by data/enrolment.py into each row, found again by their beginning."""

from collections.abc import Sequence

BY_SPEAKER = 'normalised by speaker: '  # of a protocol that knows something of the tested speaker


def of_known_speakers(marks: Sequence[str]) -> list[str]:
    """Those of a protocol that knows something of the tested speaker."""
    return [mark for mark in marks if mark.startswith(BY_SPEAKER)]
