"""Text for a terminal: aligned tables, and nothing that a terminal would obey."""

from __future__ import annotations

from typing import Any


def shown(text: str) -> str:
    """Text of a file, which a stranger may have written, without control characters."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Lines of aligned cells; an empty `head` is left out."""
    lines = [head, *rows] if head else rows
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def learnt_in_words(worker: dict[str, Any]) -> str:
    """What the owner of a slot has learnt of its memory, or an owner before it."""
    learnt = worker["learnt"]
    if learnt is None:
        return "-"
    words = [learnt["state"]]
    if learnt["rate_mb_per_hour"]:
        words.append(f"{learnt['rate_mb_per_hour']:.1f} MB/h")
    if learnt["mb_per_1000_requests"]:
        words.append(f"{learnt['mb_per_1000_requests']:.3g} MB/1000 requests")
    if learnt["cause"] != "unknown":
        words.append(learnt["cause"])
    if learnt["generation"] != worker["generation"]:
        words.append("of an owner before")
    return ", ".join(words)


def silence_log() -> None:
    """For commands that tell themselves what the library also logs: stderr stays free of it."""
    import logging

    logger = logging.getLogger("memguard_native")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
