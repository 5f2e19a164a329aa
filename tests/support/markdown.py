"""Reading Markdown pages: headings and their anchors, links, and fenced code blocks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

FENCE = re.compile(r"^( *)(```+)(\w*)[^\n]*\n(.*?)^\1\2 *$", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^(#{1,6}) +(.+?) *#* *$", re.MULTILINE)
LINK = re.compile(r"\]\(<?([^)\s>]+)>?(?: +\"[^\"]*\")?\)")


@dataclass(frozen=True)
class Heading:
    """A heading of a page, with the anchor that code hosts give it."""

    level: int
    title: str
    anchor: str


@dataclass(frozen=True)
class CodeBlock:
    """A fenced code block: its language, its text, and the line of the page where it starts."""

    language: str
    text: str
    line: int


def headings(page: str) -> list[Heading]:
    """Headings in order. A second heading of the same title gets the anchor `title-1`."""
    seen: Counter[str] = Counter()
    result = []
    for mark, title in HEADING.findall(_without_fences(page)):
        anchor = anchor_of(title)
        number, seen[anchor] = seen[anchor], seen[anchor] + 1
        result.append(Heading(len(mark), title, f"{anchor}-{number}" if number else anchor))
    return result


def anchor_of(title: str) -> str:
    """Anchor of a heading, as GitHub makes it: lower case, hyphens for spaces, no punctuation."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "").replace("*", "")
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def links(page: str) -> list[str]:
    """Targets of inline links and images, outside code."""
    return LINK.findall(re.sub(r"`[^`\n]*`", "code", _without_fences(page)))


def code_blocks(page: str) -> Iterator[CodeBlock]:
    """Fenced code blocks in order."""
    for block in FENCE.finditer(page):
        yield CodeBlock(block[3], block[4], page.count("\n", 0, block.start()) + 1)


def indented_lines(page: str) -> list[str]:
    """Lines that are indented by four spaces: code blocks without a fence."""
    return re.findall(r"^ {4}(.*)$", _without_fences(page), re.MULTILINE)


def _without_fences(page: str) -> str:
    return FENCE.sub("", page)
