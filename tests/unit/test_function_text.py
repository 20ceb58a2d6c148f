"""The text of a function changes with what it does, and with nothing else."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eaf_inference.dataset.function_text import function_text

SOURCE = """
import functools
import awkward as ak
import numpy as np
CUT, NAMES, WEIGHTS = 30.0, {"a", "b", "c"}, np.arange(3.0)
def helper(events):
    return events.jets[events.jets.pt > CUT]
def select(events, name="jets"):
    'Cut.'
    if name in {"jets", "fatjets", "muons"}:
        return ak.mask(helper(events), [each in NAMES for each in events.fields])
    return helper(events) * WEIGHTS
"""


def text_of(source: str, name: str = "select") -> str:
    space: dict = {"__name__": "analysis"}
    exec(compile(source, "analysis.py", "exec"), space)  # noqa: S102
    return function_text(space[name])


def test_equal_code_has_equal_texts_whatever_surrounds_it():
    other = SOURCE.replace("def select", "x = 1\n\n# why\ndef select").replace("'Cut.'", "'Another.'")
    assert text_of(SOURCE) == text_of("fields = jets = CUT = 1\n" + other)
    assert re.fullmatch(r"select \([0-9a-f]{12}\)", text_of(SOURCE))


def test_any_change_of_what_is_done_changes_the_text():
    changed = [
        SOURCE.replace("30.0", "25.0"),
        SOURCE.replace("> CUT", ">= CUT"),
        SOURCE.replace("jets.pt", "jets.eta"),
        SOURCE.replace('"c"}', '"d"}'),
        SOURCE.replace("arange(3.0)", "arange(3.0) * 2"),
        SOURCE.replace('name="jets"', 'name="muons"'),
        SOURCE.replace("* WEIGHTS", "/ WEIGHTS"),
        SOURCE.replace('"fatjets"', '"taus"'),
        SOURCE.replace("ak.mask", "ak.drop_none"),
    ]
    assert SOURCE not in changed
    assert len({text_of(source) for source in [SOURCE, *changed]}) == len(changed) + 1


def test_a_change_in_the_method_of_a_class_changes_the_text():
    source = """
class Cut:
    def __call__(self, events):
        return self.of(events)
    def of(self, events):
        return events.pt > 3
select = Cut()
"""
    assert len({text_of(each) for each in (source, source.replace(">", "<"), source.replace("3", "4"))}) == 3


WRAPPED = """
import enum, functools
class Base:
    LOWEST = 20.0
    def above(self, events):
        return events.pt > self.LOWEST
class Derived(Base):
    @staticmethod
    def jets(events):
        return events.jets
    @property
    def most(self):
        return 500.0
    def __call__(self, events):
        return self.above(self.jets(events)) & (events.pt < self.most)
class Slotted:
    __slots__ = ("cut",)
    def __init__(self, cut):
        self.cut = cut
    def __call__(self, events):
        return events.pt > self.cut
class Kind(enum.Enum):
    TIGHT, LOOSE, NONE = 40.0, 25.0, 0.0
@functools.lru_cache
def eta(kind):
    return 2.5
def plain(events, kind):
    return events.eta < eta(kind)
derived, slotted, partial = Derived(), Slotted(30.0), functools.partial(functools.partial(plain), kind=Kind.TIGHT)
"""


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("derived", [("20.0", "25.0"), ("500.0", "600.0"), ("events.jets", "events.fatjets"), ("> self", ">= self")]),
        ("slotted", [("Slotted(30.0)", "Slotted(31.0)"), ("events.pt > self.cut", "events.pt < self.cut")]),
        (
            "partial",
            [("2.5", "2.4"), ("events.eta <", "events.eta >"), ("40.0", "41.0"), ("Kind.TIGHT", "Kind.LOOSE")],
        ),
    ],
)
def test_changes_inside_classes_partials_and_wrapped_functions_count(name, changes):
    texts = {text_of(source, name) for source in [WRAPPED, *(WRAPPED.replace(*each) for each in changes)]}
    assert len(texts) == len(changes) + 1
    assert text_of(WRAPPED.replace("LOWEST", "LEAST"), "slotted") in text_of(WRAPPED, "slotted")


def test_another_process_gives_the_same_text(tmp_path):
    (tmp_path / "analysis.py").write_text(SOURCE, encoding="utf-8")
    code = (
        "import analysis; from eaf_inference.dataset.function_text import function_text; "
        "print(function_text(analysis.select))"
    )
    root = str(Path(__file__).parents[2])
    texts = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}", "PYTHONHASHSEED": seed},
            capture_output=True,
            encoding="utf-8",
            check=True,
        ).stdout.strip()
        for seed in "12"
    ]
    assert texts == [text_of(SOURCE)] * 2


def test_closures_partials_methods_and_objects_count_with_their_values():
    def above(cut):
        return lambda events: events.pt > cut

    class Above:
        def __init__(self, cut):
            self.cut = cut

        def __call__(self, events):
            return events.pt > self.cut

        def method(self, events):
            return events.pt < self.cut

    def between(events, low, high):
        return (events.pt > low) & (events.pt < high)

    for make in (
        above,
        Above,
        lambda cut: Above(cut).method,
        lambda cut: functools.partial(between, low=cut, high=50),
        lambda cut: lambda events: above(cut)(events),
    ):
        assert function_text(make(30)) == function_text(make(30))
        assert function_text(make(30)) != function_text(make(31))


def test_functions_that_refer_to_themselves_come_to_an_end():
    def recursive(events, depth=2):
        return recursive(events, depth - 1) if depth else events

    assert function_text(recursive).startswith("test_functions_that_refer")
    assert function_text(np.sqrt).startswith("sqrt (")
    assert function_text(len).startswith("len (")
