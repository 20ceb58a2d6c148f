"""The names that users type, and how errors are shown to them."""

from __future__ import annotations

import pytest

import eaf_inference
from eaf_inference import errors

ERRORS = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("name", eaf_inference.__all__)
def test_every_exported_name_exists(name):
    value = getattr(eaf_inference, name)
    assert name in dir(eaf_inference)
    if isinstance(value, type) or callable(value):
        assert value.__name__ == name
        assert value.__doc__


def test_the_exported_names_are_the_documented_ones():
    promised = {"connect", "Connection", "Model", "features", "errors", "StaticToken", "TokenFile", "BearerDiscovery"}
    assert set(eaf_inference.__all__) >= promised
    assert len(set(eaf_inference.__all__)) == len(eaf_inference.__all__)


def test_an_unknown_name_is_an_attribute_error_of_the_package():
    with pytest.raises(AttributeError, match="module 'eaf_inference' has no attribute 'conect'"):
        _ = eaf_inference.conect


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_is_an_inference_error_that_shows_as_one_message(kind):
    assert issubclass(kind, errors.InferenceError)
    assert kind.__doc__
    assert kind("what was wrong")._render_traceback_() == [f"{kind.__name__}: what was wrong"]


def test_every_error_is_exported_and_invalid_input_is_a_value_error():
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert defined == set(errors.__all__)
    assert issubclass(errors.InvalidInput, ValueError)
