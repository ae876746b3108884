"""What a model said about an image: one grammar for rewards, evaluation, serving and gates. Try `iadr1 explain "TEXT"`.

A text is well formed when it is exactly one of the two patterns of the paper (white space between blocks allowed, tags in any case):

    <think>…</think><answer>No</answer>
    <think>…</think><location>…</location><type>…</type><answer>Yes</answer>

`ok`          one of the patterns, no block empty, and the answer is the one of its pattern.
`malformed`   an answer can be read outside the reasoning, but the form is wrong.
`ambiguous`   yes and no are both given, or one of several answers cannot be read.
`truncated`   no answer, because the text stops inside a block or was cut.
`unreadable`  none of these: no answer block, an empty one, or one that says neither yes nor no.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

Status = Literal["ok", "malformed", "ambiguous", "truncated", "unreadable"]
Pattern = Literal["normal", "anomalous"]

TAGS = ("think", "location", "type", "answer")
# More tags of one kind than this is a runaway; what follows is not read.
TAG_LIMIT = 64
# A base model answers at the start; an answer word after this many characters is prose.
FREE_TEXT_LIMIT = 4000

# Possessive throughout: no character is looked at twice. A text with another "<" in it takes the general way.
_WELL_FORMED = re.compile(
    r"\s*+<think>([^<]*+)</think>\s*+(?:<location>([^<]*+)</location>\s*+<type>([^<]*+)</type>\s*+)?+<answer>\s*+(?:(yes)|no)\s*+</answer>\s*+",
    re.IGNORECASE | re.ASCII,
)
_WORD = re.compile(r"[^\W_]++(?:['’][^\W_]++)?+")
_ANSWERS = {"yes": True, "no": False}
_PREFIX = re.compile(r"[\s*#\"']*+(?:the\s++)?+(?:final\s++|correct\s++)?+answer(?:\s++is)?+[\s*:\"']++", re.IGNORECASE)
_OPTION = re.compile(
    r"\s*+(?:\*\*)?+(?:(?:the\s++)?+(?:correct\s++)?+(?:answer|option)(?:\s++is)?+\s*+:?+\s*+)?+\(?+([AB])(?:[.):,]|\*\*|\s*+$|\s++is\s++(?:correct|right|the\s))",
    re.IGNORECASE,
)
_TAGGED_LETTER = re.compile(r"<(?i:answer)>\s*+\(?+([AB])[.):]*+\s*+</(?i:answer)>")
# "… so the answer is no.", and a text that ends with a bare "Yes.": not part of a sentence, as in "the answer is no longer clear".
_STATED = re.compile(
    r"\b(?:answer|option)\b(?:\s++is)?+[\s*:\"'(]*+(?:(yes)|(no)|((?-i:A))|((?-i:B)))(?=\s*+(?:[.,;:!*\"')}]|because\b|since\b|$))"
    r"|[.?!:\n][\s*]{0,8}+(?:(yes)|(no))[\s.!*\"'}]*+$",
    re.IGNORECASE,
)
# "No doubt there is a defect" does not say no.
_EMPTY_NO = re.compile(r"no\s++(?:doubt|question|idea|clue|way|comment|answer|wonder|longer)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The reading of one completion; `anomalous` is None when no clear yes or no can be read."""

    anomalous: bool | None
    location: str | None = None
    type: str | None = None
    reasoning: str | None = None
    status: Status = "ok"
    layout: Pattern | None = field(default=None, compare=False, repr=False)

    @classmethod
    def parse(cls, text: str, *, truncated: bool = False) -> "Verdict":
        """The verdict of a tagged completion; never raises, and takes time linear in the text."""
        blocks = _well_formed(text)
        if blocks is None:
            return _general(text, truncated)
        think, location, kind = blocks
        return cls(location is not None, location, kind, think, "ok", "normal" if location is None else "anomalous")

    @classmethod
    def read(cls, text: str, *, truncated: bool = False) -> "Verdict":
        """The verdict of a base model's free text: tags when it has answer tags, else yes and no as words, or the letter of an option."""
        lowered = _lowered(text)
        thought = lowered.rfind("</think>")
        if "<answer>" in lowered or (thought < 0 and "<think>" in lowered):
            verdict = cls.parse(text, truncated=truncated)
            return verdict if verdict.status != "unreadable" else replace(verdict, **_lettered(text))
        anomalous, status = free_answer(text[thought + len("</think>") :] if thought >= 0 else text)
        if anomalous is None and truncated:
            status = "truncated"
        return cls(anomalous, None, None, text.strip() or None, status)

    def render(self) -> str:
        """The text that parses to this verdict, without white space between tags; a missing block is left out."""
        answer = None if self.anomalous is None else "Yes" if self.anomalous else "No"
        contents = (self.reasoning, self.location, self.type, answer)
        return "".join(f"<{tag}>{_tagless(content)}</{tag}>" for tag, content in zip(TAGS, contents, strict=True) if content is not None)

    @property
    def pattern(self) -> Pattern | None:
        """Which of the paper's two patterns the text has, whatever its answer says."""
        if self.status == "ok":
            return "anomalous" if self.anomalous else "normal"
        return self.layout


def _lettered(text: str) -> dict[str, Any]:
    """The answer where a base model gave an option's letter in its tags, as MMAD's prompt asks for: A is yes and B is no."""
    letters = set(_TAGGED_LETTER.findall(text))
    return {"anomalous": letters == {"A"}, "status": "malformed"} if len(letters) == 1 else {}


def status_of(text: str) -> Status:
    """The status that `Verdict.parse` gives a text."""
    return "ok" if _well_formed(text) is not None else _general(text, False).status


def _well_formed(text: str) -> tuple[str, str | None, str | None] | None:
    """Reasoning, location and type of a well-formed text without another "<" in it; None sends the text the general way."""
    match = _WELL_FORMED.fullmatch(text)
    if match is None:
        return None
    think, location, kind, yes = match.groups()
    think = think.strip()
    if location is None:
        return (think, None, None) if think and yes is None else None
    location, kind = location.strip(), kind.strip()
    return (think, location, kind) if think and yes and location and kind else None


def _tagless(content: str) -> str:
    if any(tag.closing or tag.name in TAGS for tag in _tags(content)):
        raise ValueError(f"a block cannot hold one of the tags {', '.join(TAGS)}; found {content[:80]!r}. Remove the tag from the text.")
    return content


class _Tag(NamedTuple):
    start: int
    end: int
    name: str
    closing: bool


class _Block(NamedTuple):
    name: str
    content: str


def _tags(text: str) -> list[_Tag]:
    """All tags in order of place, at most TAG_LIMIT of a kind."""
    if "<" not in text:
        return []
    lowered = _lowered(text)
    found = []
    for name in TAGS:
        for literal, closing in ((f"<{name}>", False), (f"</{name}>", True)):
            at = lowered.find(literal)
            for _ in range(TAG_LIMIT):
                if at < 0:
                    break
                found.append(_Tag(at, at + len(literal), name, closing))
                at = lowered.find(literal, at + len(literal))
    return sorted(found)


def _lowered(text: str) -> str:
    """The text in lower case with every character at its place: İ would become two, and the Kelvin sign the k of a tag."""
    return text.replace("\u0130", "?").replace("\u212a", "?").lower()


def _general(text: str, truncated: bool) -> Verdict:
    """The reading of any text, well formed or not."""
    tags = _tags(text)
    layout, blocks = _pattern_of(text, tags)
    if layout is None:
        blocks = _loose_blocks(text, tags)
    first = {block.name: block.content for block in reversed(blocks) if block.name != "answer" and block.content}
    contents = [block.content for block in blocks if block.name == "answer"]
    anomalous, status = _answer(contents)
    if anomalous is not None and layout is not None and anomalous == (layout == "anomalous") and _is_bare(contents[0]):
        status = "ok"
    elif status == "unreadable" and not any(contents) and (truncated or _is_cut(tags, text)):
        status = "truncated"
    return Verdict(anomalous, first.get("location"), first.get("type"), first.get("think"), status, layout)


def _pattern_of(text: str, tags: list[_Tag]) -> tuple[Pattern | None, list[_Block]]:
    """The pattern that the whole text has, and its blocks; an empty block before the answer makes it none."""
    names = ("think", "answer") if len(tags) == 4 else TAGS if len(tags) == 8 else ()
    expected = [(name, closing) for name in names for closing in (False, True)]
    if not names or [(tag.name, tag.closing) for tag in tags] != expected:
        return None, []
    gaps = [text[: tags[0].start], text[tags[-1].end :]] + [text[tags[i].end : tags[i + 1].start] for i in range(1, len(tags) - 1, 2)]
    blocks = [_Block(tags[i].name, text[tags[i].end : tags[i + 1].start].strip()) for i in range(0, len(tags), 2)]
    if any(gap.strip() for gap in gaps) or not all(block.content for block in blocks[:-1]):
        return None, blocks
    return ("anomalous" if len(names) == 4 else "normal"), blocks


def _loose_blocks(text: str, tags: list[_Tag]) -> list[_Block]:
    """Everything that ends at a closing tag and is not inside the reasoning; "No</answer>" counts although nothing opened it."""
    inside = _reasoning_spans(tags)
    blocks, before, after_closing = [], 0, False
    for tag in tags:
        content = text[before : tag.start].strip()
        hidden = any(start < tag.start < end for start, end in inside)
        if tag.closing and not hidden and (content or not after_closing):
            blocks.append(_Block(tag.name, content))
        before, after_closing = tag.end, tag.closing
    return blocks


def _reasoning_spans(tags: list[_Tag]) -> list[tuple[int, int]]:
    """From each opening think tag to its closing one; a reasoning that never closes hides nothing."""
    spans, opened = [], None
    for tag in tags:
        if tag.name != "think":
            continue
        if not tag.closing:
            opened = tag.start if opened is None else opened
        elif opened is not None:
            spans.append((opened, tag.start))
            opened = None
    return spans


def _is_cut(tags: list[_Tag], text: str) -> bool:
    """Whether the text stops inside a block or a tag, or before an answer that never came."""
    if not tags or not tags[-1].closing:
        return bool(tags)
    rest = text[tags[-1].end :].strip().lower()
    return tags[-1].name != "answer" and any(f"<{tag}>".startswith(rest) for tag in TAGS)


def _answer(contents: list[str]) -> tuple[bool | None, Status]:
    """What several answer blocks say together."""
    readings = [word_answer(content) for content in contents]
    values = {value for value, _ in readings}
    if len(values) > 1 or any(status == "ambiguous" for _, status in readings):
        return None, "ambiguous"
    if not values or None in values:
        return None, "unreadable"
    return values.pop(), "malformed"


def _is_bare(content: str) -> bool:
    return content.strip(" \t\r\n.!*\"'`").lower() in _ANSWERS


def word_answer(content: str) -> tuple[bool | None, Status]:
    """The yes or no that a text begins with; never a part of a word, and never one of two."""
    words = [word.lower() for word in _WORD.findall(content[:FREE_TEXT_LIMIT])]
    said = {word for word in words if word in _ANSWERS}
    if len(said) > 1:
        return None, "ambiguous"
    if not said or words[0] not in _ANSWERS or _EMPTY_NO.match(content.lstrip()):
        return None, "unreadable"
    return _ANSWERS[words[0]], "ok" if len(words) == 1 else "malformed"


def free_answer(text: str) -> tuple[bool | None, Status]:
    """The answer in free text: a leading yes or no, an option's letter (A is yes, B is no), else a clear statement."""
    prefix = _PREFIX.match(text)
    anomalous, status = _leading_answer(text[prefix.end() :] if prefix else text)
    if anomalous is not None:
        return anomalous, "ok"
    option = _OPTION.match(text)
    if option:
        # "A. No" says both.
        chosen, said = option[1].upper() == "A", _leading_answer(text[option.end() :])[0]
        return (None, "ambiguous") if said is (not chosen) else (chosen, "ok")
    if status == "ambiguous":
        return None, status
    stated = {bool(found[1] or found[3] or found[5]) for found in _STATED.finditer(text[-FREE_TEXT_LIMIT:])}
    if len(stated) > 1:
        return None, "ambiguous"
    from iadr1.agreement import conclusion

    concluded = stated.pop() if stated else conclusion(text[:FREE_TEXT_LIMIT])
    return (None, "unreadable") if concluded is None else (concluded, "malformed")


def _leading_answer(text: str) -> tuple[bool | None, Status]:
    """Yes or no as the first word; a "no" later in the sentence does not undo a leading yes, but "yes or no" does."""
    head = text[:FREE_TEXT_LIMIT]
    words = [word.lower() for word in _WORD.findall(head)]
    if not words:
        return None, "unreadable"
    if words[0] in _ANSWERS and not _EMPTY_NO.match(head.lstrip()):
        follows = words[1:4]
        either = follows[:1] in (["or"], ["and"]) and any(word in _ANSWERS for word in follows)
        # A "no" after a leading yes may belong to the sentence; a "yes" after a leading no takes it back.
        if either or (words[0] == "no" and "yes" in words):
            return None, "ambiguous"
        return _ANSWERS[words[0]], "ok"
    said = {word for word in words if word in _ANSWERS}
    return None, "ambiguous" if len(said) > 1 else "unreadable"
