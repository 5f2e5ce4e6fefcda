"""Subscription filters on message attributes, in Google Pub/Sub's documented grammar.

::

    filter    = term {"AND" term} | term {"OR" term}
    term      = ["NOT" | "-"] (comparison | "(" filter ")")
    comparison= "attributes" ":" key
              | "attributes" "." key ("=" | "!=") string
              | "hasPrefix" "(" "attributes" "." key "," string ")"

AND and OR are mixed with parentheses only; operators are in capitals. A key with anything
but letters, digits, ``-`` and ``_`` is quoted: ``attributes."kafka.topic" = "x"``. A message
without the attribute matches ``!=``, and no other comparison.

References
----------
https://cloud.google.com/pubsub/docs/subscription-message-filter#filtering_syntax
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_

import numpy as np
import polars as pl
from numpy.typing import NDArray

from broker.errors import UsageError

# The most that Pub/Sub takes; a longer filter would work here and be refused there.
_MAX_BYTES = 256
_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[A-Za-z0-9_](?:[\w-]*)|!=|[=:.,()-])')

# Longer than any key of a message.
_ROW = "row" * 100
# No key of a message, so that a frame without attributes still has its rows.
_NO_ATTRIBUTE = ""

# A backslash and what follows: a hexadecimal or octal code, or one character.
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|([0-3][0-7]{2})|(.))")

_Predicate = Callable[[frozenset[str]], pl.Expr]


@dataclass(frozen=True, slots=True)
class AttributeFilter:
    """A filter ready to use; the empty text matches every message.

    Raises
    ------
    UsageError
        If the grammar is wrong; the message tells the position.

    Examples
    --------
    >>> f = AttributeFilter('attributes.band = "g" AND NOT attributes:testid')
    >>> f.rows(pl.DataFrame({"band": ["g", "r", "g"]})).tolist()
    [0, 2]
    """

    text: str

    def __post_init__(self) -> None:
        _parse(self.text)

    def rows(self, attributes: pl.DataFrame, count: int = 0) -> NDArray[np.int64]:
        """Return the rows of `attributes` that match, in order.

        Parameters
        ----------
        attributes : polars.DataFrame
            One row a message.
        count : int
            How many messages there are, where none of them has attributes.
        """
        predicate = _parse(self.text)
        if not attributes.width:
            attributes = pl.DataFrame({_NO_ATTRIBUTE: np.zeros(count, dtype=np.int8)})
        if predicate is None:
            return np.arange(attributes.height)
        matched = predicate(frozenset(attributes.columns))
        rows = attributes.with_row_index(_ROW).filter(matched).get_column(_ROW)
        return rows.to_numpy().astype(np.int64)


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    at: int


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._next = 0

    def filter(self) -> _Predicate:
        terms, joiner = [self._term()], ""
        while self._peek() in ("AND", "OR"):
            token = self._take()
            if joiner not in ("", token.text):
                raise self._error(token, "parentheses, as AND and OR are mixed")
            joiner = token.text
            terms.append(self._term())
        if len(terms) == 1:
            return terms[0]
        join = and_ if joiner == "AND" else or_
        return lambda columns: reduce(join, (term(columns) for term in terms))

    def end(self) -> None:
        if self._peek():
            raise self._error(self._take(), "AND, OR or the end")

    def _term(self) -> _Predicate:
        if self._peek() in ("NOT", "-"):
            self._take()
            term = self._factor()
            return lambda columns: ~term(columns)
        return self._factor()

    def _factor(self) -> _Predicate:
        token = self._take()
        if token.text == "(":
            inside = self.filter()
            self._expect(")")
            return inside
        if token.text == "hasPrefix":
            return self._has_prefix()
        if token.text == "attributes":
            return self._comparison()
        raise self._error(token, "attributes, hasPrefix, NOT or (")

    def _has_prefix(self) -> _Predicate:
        for text in ("(", "attributes", "."):
            self._expect(text)
        key = self._key()
        self._expect(",")
        prefix = self._string()
        self._expect(")")
        return lambda columns: _value(key, columns).str.starts_with(prefix).fill_null(False)

    def _comparison(self) -> _Predicate:
        token = self._take()
        if token.text == ":":
            key = self._key()
            return lambda columns: _value(key, columns).is_not_null()
        if token.text != ".":
            raise self._error(token, "'.' or ':'")
        key = self._key()
        operator = self._take()
        if operator.text not in ("=", "!="):
            raise self._error(operator, "= or !=")
        value = self._string()
        if operator.text == "=":
            return lambda columns: _value(key, columns).eq_missing(value)
        return lambda columns: _value(key, columns).ne_missing(value)

    def _key(self) -> str:
        token = self._take()
        if token.text.startswith('"'):
            return self._unquote(token)
        if re.fullmatch(r"[\w-]+", token.text):
            return token.text
        raise self._error(token, "an attribute's name")

    def _string(self) -> str:
        token = self._take()
        if not token.text.startswith('"'):
            raise self._error(token, "a value in double quotes")
        return self._unquote(token)

    def _unquote(self, token: _Token) -> str:
        try:
            return str(json.loads(_ESCAPE.sub(_in_json, token.text)))
        except ValueError as error:
            raise self._error(token, "a string without unknown escapes") from error

    def _expect(self, text: str) -> None:
        token = self._take()
        if token.text != text:
            raise self._error(token, repr(text))

    def _peek(self) -> str:
        return self._tokens[self._next].text

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _error(self, token: _Token, expected: str) -> UsageError:
        found = repr(token.text) if token.text else "the end"
        return UsageError(
            f"subscription filter, position {token.at + 1}: expected {expected}, found {found}: "
            f"{self._text}"
        )


def _in_json(escape: re.Match[str]) -> str:
    """Write an escape as JSON does, which knows neither hexadecimal nor octal codes."""
    hexadecimal, octal, _ = escape.groups()
    code = int(hexadecimal, 16) if hexadecimal else int(octal, 8) if octal else None
    return escape[0] if code is None else f"\\u{code:04x}"


def _parse(text: str) -> _Predicate | None:
    if len(text.encode()) > _MAX_BYTES:
        raise UsageError(f"a subscription filter has at most {_MAX_BYTES} bytes")
    if not text.strip():
        return None
    parser = _Parser(text)
    found = parser.filter()
    parser.end()
    return found


def _tokens(text: str) -> Iterator[_Token]:
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            place = at + len(text[at:]) - len(text[at:].lstrip())
            raise UsageError(
                f"subscription filter, position {place + 1}: cannot read {text[place:]!r}"
            )
        yield _Token(match[1], match.start(1))
        at = match.end()
    yield _Token("", end)


def _value(key: str, columns: frozenset[str]) -> pl.Expr:
    """Return the attribute as it is delivered: text, or null where the message lacks it."""
    if key not in columns:
        return pl.lit(None, dtype=pl.String)
    return pl.col(key).cast(pl.String)
