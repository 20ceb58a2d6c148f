"""The reasons for failures in logs of Triton 2.51."""

from __future__ import annotations

from eaf_facility.servers import triton_log

LOG = r"""
I1123 22:22:22.820015 8548 model_lifecycle.cc:472] "loading: plain:1"
E1123 22:22:22.820149 8548 model_lifecycle.cc:642] "failed to load 'pair' version 1: Invalid argument: unable to find backend library for backend 'tensorrt', try specifying runtime on the model configuration."
E1123 22:22:22.864530 8548 model_lifecycle.cc:642] "failed to load 'jets' version 1: Internal: ModuleNotFoundError: No module named 'torch'\n\nAt:\n  /repo/jets/1/model.py(1): <module>\n  <frozen importlib._bootstrap>(488): _call_with_frames_removed\n"
error: creating server: Internal - failed to load all models
"""  # noqa: E501 - the lines are Triton's


def test_each_failed_model_is_listed_with_its_reason_and_a_hint():
    pair, jets, hint = triton_log.reasons(LOG)
    assert pair.startswith("model 'pair': Invalid argument: unable to find backend library")
    assert jets == (
        "model 'jets': Internal: ModuleNotFoundError: No module named 'torch'\n"
        "At:\n  /repo/jets/1/model.py(1): <module>"
    )
    assert "--triton-server" in hint


def test_a_log_without_a_known_reason_gives_its_last_lines():
    assert triton_log.reasons("one\ntwo\nsegmentation fault\n") == ["one", "two", "segmentation fault"]
    assert triton_log.reasons("noise\nerror: creating server: no\n") == ["creating server: no"]


def test_a_port_in_use_is_distinguished_from_other_failures():
    line = "\"failed to start HTTP service: Unavailable - Socket '127.0.0.1:8000' already in use \""
    assert triton_log.address_in_use(line)
    assert not triton_log.address_in_use(LOG)


LOG_OF_A_RUNNING_SERVER = r"""
E1128 08:19:27.160412 27502 model_repository_manager.cc:1460] "Poll failed for model directory 'not_text': failed to read text proto from /a/not_text/config.pbtxt"
E1128 08:19:27.161000 27502 model_repository_manager.cc:1323] "failed to poll model 'twice': not unique across all model repositories"
E1128 08:19:27.170191 27502 model_repository_manager.cc:724] "failed to load model 'noversion': at least one version must be available under the version policy of model 'noversion'"
I1128 08:19:27.171000 27502 model_lifecycle.cc:472] "loading: größe:1"
I1128 08:19:27.171000 27502 model_lifecycle.cc:472] "loading: broken:1"
I1128 08:19:27.171000 27502 model_lifecycle.cc:472] "loading: stuck:1"
I1128 08:19:29.171000 27502 model_lifecycle.cc:839] "successfully loaded 'größe'"
E1128 08:19:30.861970 27502 model_lifecycle.cc:642] "failed to load 'broken' version 1: Internal: ValueError: no output 'z'\n\nAt:\n  /a/model.py(141): check\n"
I1128 08:19:30.861980 27502 model_lifecycle.cc:777] "failed to load 'broken'"
E1128 08:19:30.862112 27502 model_repository_manager.cc:703] "Invalid argument: ensemble 'both' depends on 'broken' which has no loaded version."
"""  # noqa: E501 - the lines are Triton's


def test_every_kind_of_model_that_cannot_be_loaded_is_found():
    assert triton_log.failed_models(LOG_OF_A_RUNNING_SERVER) == {
        "not_text": "failed to read text proto from /a/not_text/config.pbtxt",
        "twice": "not unique across all model repositories",
        "noversion": "at least one version must be available under the version policy of model 'noversion'",
        "broken": "Internal: ValueError: no output 'z'\nAt:\n  /a/model.py(141): check",
        "both": "ensemble 'both' depends on 'broken' which has no loaded version.",
    }


def test_a_model_that_never_finishes_loading_is_named():
    assert triton_log.loading(LOG_OF_A_RUNNING_SERVER) == ["stuck"]
