"""Text for a terminal: aligned tables, and nothing that a terminal would obey."""

from __future__ import annotations


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


def silence_log() -> None:
    """For commands that tell themselves what the library also logs: stderr stays free of it."""
    import logging

    logger = logging.getLogger("memguard_native")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
