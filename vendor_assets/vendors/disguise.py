"""A vendor's answers with invented names in place of real ones, so that they can be kept as cases. Pure.

Nothing is known of an answer's fields, so every word in it is replaced but those that tell nothing of anybody: words
of the dialect's own source (field names, values like ``success``), names of metrics and of their values, times near
the day, and whole numbers below 10,000.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from itertools import count, product
from math import gcd
from typing import Any, Final, Literal

from vendor_assets.days import Window

WORD: Final = re.compile(r"[^\W_]+")
_NUMBER: Final = re.compile(r"([+-]?)([0-9]+(?:\.[0-9]+)?)((?:[eE][+-]?[0-9]+)?)")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:?\d\d)?)?")
_PERSONAL: Final = re.compile(
    r"[\w.+-]+@[\w.-]+|\w+://[^\s\"'<>]+|\d{1,3}(?:\.\d{1,3}){3}|(?<=/)[\w-]+(?:\.[\w-]+)+|\d{5,}"
)
"""What a metric's name tells of somebody: mail and other addresses, hosts after a slash, long numbers."""
_PLAIN: Final = frozenset(("http", "https"))
_NOT_FINITE: Final = frozenset(("nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"))
_SMALL: Final = 10_000
_SHORT: Final = 3
"""A shorter name is replaced, but not looked for in names of metrics."""
_Kind = Literal["metric", "name", "short"]
_SYLLABLES: Final = tuple(map("".join, product("bdfgklmnprstvz", "aeiou")))


class Disguise:
    """Replaces words and numbers: the same one by the same one, everywhere, in no way that leads back.

    Args:
        vocabulary: Words that stay.
        metrics: Names of metrics and of their values; what names somebody in them is replaced all the same.
        names: Ids and names of entities, accounts and people, and secrets: replaced also where they are made of words
            that stay.
        real: Texts of the answers; no word of these is invented for another.
        window: A time up to ten days from it stays.
        numbers: Numbers that stay, like the length of a timeslice.
    """

    def __init__(
        self,
        *,
        vocabulary: Collection[str],
        metrics: Collection[str],
        names: Collection[str],
        real: Iterable[str],
        window: Window,
        numbers: Collection[int] = (),
    ) -> None:
        self._vocabulary = vocabulary
        self._metrics = frozenset(metrics)
        self._ids = frozenset(names)
        self._phrases: dict[str, set[tuple[tuple[str, ...], _Kind]]] = {}
        # A host is also called without its domain or port, which in other texts may be a field's name.
        short = [text[: found.start()] for text in names if (found := re.search("[.:]", text))]
        kinds: tuple[tuple[Iterable[str], _Kind], ...] = (
            (metrics, "metric"),
            (names, "name"),
            (short, "short"),
        )
        for texts, kind in kinds:
            for text in texts:
                if words := tuple(WORD.findall(text.lower())):
                    self._phrases.setdefault(words[0], set()).add((words, kind))
        self._taken = {word for text in real for word in WORD.findall(text.lower())}
        self._taken |= {word.lower() for word in vocabulary}
        self._invented = _inventions()
        self._words: dict[str, str] = {}
        self._digits: dict[str, str] = {}
        self._used: set[str] = set()
        self._near = tuple(edge.timestamp() for edge in (window.start, window.end))
        self._kept = {number * 10**power for number in numbers for power in (0, 3, 6, 9)}

    def document(self, value: Any) -> Any:
        """A value of JSON; the names of its fields are replaced like other texts."""
        if isinstance(value, dict):
            return {self._field(name): self.document(held) for name, held in value.items()}
        if isinstance(value, list):
            return [self.document(held) for held in value]
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bool) or value is None:
            return value
        small = isinstance(value, int) and abs(value) < _SMALL and str(value) not in self._ids
        return value if small else type(value)(self._number(repr(value)))

    def text(self, text: str) -> str:
        """A text of any kind: a name, an address, a query, a number, a time."""
        if text in self._metrics:
            return self._words_of(text, metric=True)
        if text.lower() in _NOT_FINITE or (_TIME.fullmatch(text) and self._is_near(text)):
            return text
        return self._number(text) if _NUMBER.fullmatch(text) else self._words_of(text)

    def _field(self, name: str) -> str:
        known = all(map(self._stays, WORD.findall(name)))
        return name if known and name not in self._metrics else self.text(name)

    def _stays(self, word: str) -> bool:
        # A dialect numbers what it names, like q0 and q1.
        return not {word, word.rstrip("0123456789")}.isdisjoint(self._vocabulary) or word.lower() in _PLAIN

    def _words_of(self, text: str, *, metric: bool = False) -> str:
        """A text word by word; of a metric's name all but the entities, addresses and long numbers in it stays."""
        hidden = [found.span() for found in _PERSONAL.finditer(text)] if metric else []
        words, at, number = list(WORD.finditer(text)), 0, 0
        pieces: list[str] = []
        while number < len(words):
            length, kind = self._phrase(words, number, ("name", "short") if metric else ("name", "metric"))
            start, end = words[number].start(), words[number + max(length, 1) - 1].end()
            part = text[start:end]
            if kind == "metric":
                new = self._words_of(part, metric=True)
            elif metric:
                known = len(part) < _SHORT or all(map(self._stays, WORD.findall(part)))
                inside = any(first <= start < last for first, last in hidden)
                new = WORD.sub(self._replaced, part) if inside or (length and not known) else part
            else:
                new = part if not length and self._stays(part) else WORD.sub(self._replaced, part)
            pieces += (text[at:start], new)
            number, at = number + max(length, 1), end
        return "".join([*pieces, text[at:]])

    def _phrase(self, words: list[re.Match[str]], at: int, kinds: tuple[_Kind, _Kind]) -> tuple[int, _Kind]:
        """How many words from one on are a known phrase, the longest one, and of which kind; 0 where none are."""
        found: tuple[int, _Kind] = (0, kinds[0])
        for phrase, kind in self._phrases.get(words[at][0].lower(), ()):
            here = tuple(each[0].lower() for each in words[at : at + len(phrase)])
            better = len(phrase) > found[0] or (len(phrase) == found[0] and kind == "name")
            if kind in kinds and here == phrase and better:
                found = (len(phrase), kind)
        return found

    def _replaced(self, found: re.Match[str]) -> str:
        word = found[0]
        if word.isdecimal() and word.isascii():
            return self._of_digits(word)
        lower = word.lower()
        shapes = {lower: str.lower, word.upper(): str.upper, lower.capitalize(): str.capitalize}
        key = lower if word in shapes else word
        if key not in self._words:
            self._words[key] = next(new for new in self._invented if new not in self._taken)
        return shapes.get(word, str.lower)(self._words[key])

    def _number(self, text: str) -> str:
        """A number of as many digits; a time, a known number and one that is not finite stay."""
        if (found := _NUMBER.fullmatch(text)) is None or self._is_near(text) or float(text) in self._kept:
            return text
        sign, digits, exponent = found.groups()
        whole, point, rest = digits.partition(".")
        new = self._of_digits(whole + rest)
        return f"{sign}{new[: len(whole)]}{point}{new[len(whole) :]}{exponent}"

    def _of_digits(self, digits: str) -> str:
        """Others for digits, one for each; zeros in front stay, and a single digit."""
        own = digits.lstrip("0")
        if len(own) < 2:
            return digits
        if own not in self._digits:
            first = 10 ** (len(own) - 1)
            # Few numbers are short, so that of those some come again.
            taken = self._taken if len(own) > 4 else ()
            stride = next(each for each in count(int(first * 5.562305898749054)) if gcd(each, 9 * first) == 1)
            steps = (len(self._digits) + number for number in range(1, 9 * first))
            new = (str(first + step * stride % (9 * first)) for step in steps)
            self._digits[own] = next(
                (each for each in new if each not in self._used and each not in taken and each != own), own
            )
            self._used.add(self._digits[own])
        return digits[: len(digits) - len(own)] + self._digits[own]

    def _is_near(self, text: str) -> bool:
        """Whether a text or a number is a time near the day: in ISO 8601, or since the epoch in s, ms, µs or ns."""
        margin = 10 * 86_400
        first, last = self._near[0] - margin, self._near[1] + margin
        if _NUMBER.fullmatch(text):
            return any(first <= float(text) / scale <= last for scale in (1, 1e3, 1e6, 1e9))
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return False
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return first <= moment.timestamp() <= last


def _inventions() -> Iterator[str]:
    """Words that can be spoken, none twice."""
    for length in count(2):
        most = len(_SYLLABLES) ** length
        for number in range(most):
            # The step has no factor in common with their number, so that each comes once.
            at = number * 1607 % most
            yield "".join(
                _SYLLABLES[at // len(_SYLLABLES) ** place % len(_SYLLABLES)] for place in range(length)
            )
