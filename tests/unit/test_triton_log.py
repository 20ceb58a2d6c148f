"""Reasons picked out of logs that Triton 2.51 wrote."""

from __future__ import annotations

from eaf_inference.facility import triton_log

LOG = r"""
I1123 22:22:22.820015 8548 model_lifecycle.cc:472] "loading: plain:1"
E1123 22:22:22.820149 8548 model_lifecycle.cc:642] "failed to load 'pair' version 1: Invalid argument: unable to find backend library for backend 'tensorrt', try specifying runtime on the model configuration."
E1123 22:22:22.864530 8548 model_lifecycle.cc:642] "failed to load 'jets' version 1: Internal: ModuleNotFoundError: No module named 'torch'\n\nAt:\n  /repo/jets/1/model.py(1): <module>\n  <frozen importlib._bootstrap>(488): _call_with_frames_removed\n"
error: creating server: Internal - failed to load all models
"""  # noqa: E501 - as they are


def test_each_model_that_failed_is_given_with_its_reason_and_what_to_do():
    pair, jets, hint = triton_log.reasons(LOG)
    assert pair.startswith("model 'pair': Invalid argument: unable to find backend library")
    assert jets == (
        "model 'jets': Internal: ModuleNotFoundError: No module named 'torch'\n"
        "At:\n  /repo/jets/1/model.py(1): <module>"
    )
    assert "--triton-server" in hint


def test_a_log_that_explains_nothing_known_gives_its_last_lines():
    assert triton_log.reasons("one\ntwo\nsegmentation fault\n") == ["one", "two", "segmentation fault"]
    assert triton_log.reasons("noise\nerror: creating server: no\n") == ["creating server: no"]


def test_a_port_that_is_taken_is_told_from_other_failures():
    line = "\"failed to start HTTP service: Unavailable - Socket '127.0.0.1:8000' already in use \""
    assert triton_log.address_in_use(line)
    assert not triton_log.address_in_use(LOG)
