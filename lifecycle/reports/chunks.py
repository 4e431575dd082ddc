"""A piece of an export."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes to be written after those before, and how many rows end in them."""

    data: bytes
    rows: int
