"""The text of a ``config.pbtxt``: read it, and change single fields so that everything else stays as it was written.

protobuf's `text_format` reads the text but keeps neither comments nor fields that it does not know, so a change is
made in the text itself, at the place of the field.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf import text_format

from eaf_inference.errors import ConfigurationError
from eaf_inference.inference import protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["NAME", "Field", "fields_of", "parsed", "quoted", "quoted_lines", "with_field", "with_parameter"]

NAME = "config.pbtxt"
_TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)"""
    r"""|(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
    r"""|(?P<mark>[{}\[\]<>:,;-])"""
    r"""|(?P<word>[^\s\#"'{}\[\]<>:,;-][^\s\#"'{}\[\]<>:,;]*)"""
)
_CLOSING = {"{": "}", "<": ">", "[": "]"}
_ESCAPES = {"\\": r"\\", "\n": r"\n", "\r": r"\r", "\t": r"\t"}


@dataclass(frozen=True, slots=True)
class Field:
    """One field at the top of a text: ``name: value``, ``name { … }`` or ``name [ … ]``.

    Attributes
    ----------
    name : str
    start, end : int
        Where it is in the text, with its separator.
    values : tuple of (int, int)
        Where its values are: one, or those in the list.
    listed : bool
        It is a list.
    """

    name: str
    start: int
    end: int
    values: tuple[tuple[int, int], ...]
    listed: bool


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int


def parsed(text: str) -> Any:
    """Return the text as a ``ModelConfig``; fields that only a newer Triton knows are left out.

    Raises
    ------
    ConfigurationError
        It is no such text; the message names the line.
    """
    config = protocol.ModelConfig()
    try:
        text_format.Parse(text, config, allow_unknown_field=True)
    except (text_format.ParseError, ValueError, RecursionError) as error:
        why = str(error)[:300].rstrip(".")
        raise ConfigurationError(
            f"The {NAME} cannot be read: {'line ' * why[:1].isdigit()}{why}. Expected Triton's text format, such as "
            'name: "jets" and input [{ name: "x", data_type: TYPE_FP32, dims: [3] }].'
        ) from error
    return config


def quoted(text: str, *, mark: str = '"') -> str:
    """Write a text as a string of the text format."""
    return mark + "".join(_escaped(each, mark) for each in text) + mark


def quoted_lines(text: str, indent: str) -> str:
    """Write a text as strings, one for each of its lines, which together are the text."""
    return "\n".join(indent + quoted(line, mark="'") for line in text.splitlines(keepends=True)) or f"{indent}''"


def _escaped(character: str, mark: str) -> str:
    if character == mark:
        return "\\" + mark
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode())


def with_field(text: str, name: str, value: str, *, first: bool = False, comment: str = "") -> str:
    """Return the text with one field of this name, where the first of that name was.

    Parameters
    ----------
    text, name : str
    value : str
        The whole field, such as ``name: "jets"``.
    first : bool, optional
        Put a new field at the beginning instead of the end.
    comment : str, optional
        A line above a new field.
    """
    present = [each for each in fields_of(text) if each.name == name]
    if not present:
        return _inserted(text, value, first=first, comment=comment)
    for each in reversed(present[1:]):
        text = _without(text, each.start, each.end)
    return text[: present[0].start] + value + text[present[0].end :]


def with_parameter(text: str, key: str, value: str, *, comment: str = "") -> str:
    """Return the text with one parameter of this key, where the first of that key was."""
    entry = f"{{ key: {quoted(key)} value {{ string_value: {quoted(value)} }} }}"
    places = [
        (field, place)
        for field in fields_of(text)
        if field.name == "parameters"
        for place in field.values
        if key in parsed("parameters " + text[slice(*place)]).parameters
    ]
    if not places:
        return _inserted(text, f"parameters {entry}", first=False, comment=comment)
    for field, (start, end) in reversed(places[1:]):
        if len(field.values) == 1:
            start, end = field.start, field.end
        elif field.listed:
            start, end = _with_comma(field, start, end)
        text = _without(text, start, end)
    start, end = places[0][1]
    return text[:start] + entry + text[end:]


def _with_comma(field: Field, start: int, end: int) -> tuple[int, int]:
    """Return where an element of a list is with one of the commas around it."""
    at = field.values.index((start, end))
    return (field.values[at - 1][1], end) if at else (start, field.values[at + 1][0])


def _inserted(text: str, value: str, *, first: bool, comment: str) -> str:
    block = f"# {comment}\n{value}\n" if comment else f"{value}\n"
    if first:
        return block + text
    return text + ("" if not text or text.endswith("\n") else "\n") + ("\n" if comment else "") + block


def _without(text: str, start: int, end: int) -> str:
    """Remove a part, and its line if nothing else is on it."""
    before, after = text.rfind("\n", 0, start) + 1, text.find("\n", end)
    after = len(text) if after < 0 else after
    if not text[before:start].strip() and not text[end:after].strip():
        start, end = before, min(after + 1, len(text))
    return text[:start] + text[end:]


def fields_of(text: str) -> tuple[Field, ...]:
    """Return the fields at the top of a text, in order.

    Raises
    ------
    ConfigurationError
        It is no text format.
    """
    return tuple(_Fields(text))


class _Fields:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._scan())
        self._at = 0

    def __iter__(self) -> Iterator[Field]:
        while self._at < len(self._tokens):
            name = self._next()
            if name.kind != "word":
                raise self._wrong(name.start, f"{name.text!r} where a field's name was expected")
            self._skip(":")
            start = self._at
            listed = self._peek() == "["
            values = self._elements() if listed else (self._value(),)
            self._skip(",") or self._skip(";")
            if self._at == start:
                raise self._wrong(name.start, f"the field {name.text!r} has no value")
            yield Field(name.text, name.start, self._tokens[self._at - 1].end, values, listed)

    def _scan(self) -> Iterator[_Token]:
        at = 0
        while at < len(self._text):
            match = _TOKEN.match(self._text, at)
            if match is None:
                raise self._wrong(at, "a quotation mark without its partner")
            if match.lastgroup != "space":
                yield _Token(str(match.lastgroup), match[0], at, match.end())
            at = match.end()

    def _elements(self) -> tuple[tuple[int, int], ...]:
        self._next()
        found = []
        while self._peek() != "]":
            found.append(self._value())
            if not self._skip(",") and self._peek() != "]":
                raise self._wrong(found[-1][1], "a list without a comma or its end")
        self._next()
        return tuple(found)

    def _value(self) -> tuple[int, int]:
        """Pass a message, or a scalar: a word, a number with a sign, or strings after one another."""
        first = self._next()
        if first.text in _CLOSING:
            open_marks = [first]
            last = first
            while open_marks:
                last = self._next()
                if last.kind == "mark" and last.text in _CLOSING:
                    open_marks.append(last)
                elif last.text in _CLOSING.values() and last.text != _CLOSING[open_marks.pop().text]:
                    raise self._wrong(last.start, f"{last.text!r} without its partner")
            return first.start, last.end
        last = self._next() if first.text == "-" else first
        if last.kind not in ("word", "string"):
            raise self._wrong(last.start, f"{last.text!r} where a value was expected")
        while last.kind == "string" and self._at < len(self._tokens) and self._tokens[self._at].kind == "string":
            last = self._next()
        return first.start, last.end

    def _peek(self) -> str:
        if self._at == len(self._tokens):
            raise self._wrong(len(self._text), "the end, inside a field")
        token = self._tokens[self._at]
        return token.text if token.kind == "mark" else ""

    def _next(self) -> _Token:
        self._at += 1
        if self._at > len(self._tokens):
            raise self._wrong(len(self._text), "the end, inside a field")
        return self._tokens[self._at - 1]

    def _skip(self, mark: str) -> bool:
        found = self._at < len(self._tokens) and self._tokens[self._at].text == mark
        self._at += found
        return found

    def _wrong(self, at: int, why: str) -> ConfigurationError:
        line = self._text.count("\n", 0, at) + 1
        return ConfigurationError(
            f"The {NAME} cannot be read: line {line}: {why}. Expected Triton's text format, such as "
            'name: "jets" and input [{ name: "x", data_type: TYPE_FP32, dims: [3] }].'
        )
