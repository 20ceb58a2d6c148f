"""A model that is loaded anew while it is used, with real Tritons that poll their repositories."""

from __future__ import annotations

import itertools
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from waiting import until
from zoo import FLOAT, NODE, save_model

import eaf_inference
from eaf_facility.servers.triton import TritonServer
from eaf_inference.errors import ModelChanged, ServerUnavailable
from eaf_inference.inference import reloads

ROWS = np.linspace(-1, 1, 24, dtype=np.float32).reshape(-1, 2)


class PollingTriton(TritonServer):
    """A Triton that loads models anew when their files change, as some facilities run it."""

    def _command(self, region, links):
        command = [each for each in super()._command(region, links) if not each.startswith("--model-control-mode")]
        caches = self._installation.server.parents[1] / "caches"
        cache = ["--cache-config=local,size=1048576", f"--cache-directory={caches}"]
        return [*command, "--model-control-mode=poll", "--repository-poll-secs=1", *cache]


def save(directory, factor, *, config=""):
    """Write a model that multiplies by a factor."""
    save_model(
        directory,
        nodes=[NODE("Constant", [], ["factor"], value_float=factor), NODE("Mul", ["x", "factor"], ["y"])],
        inputs=[("x", FLOAT, ["n", 2])],
        outputs=[("y", FLOAT, ["n", 2])],
        config=config,
    )


def replace(repository, name, factor, *, version="1", config=""):
    """Replace a model's file as a whole, as an operator does."""
    new = repository.parent / f"{repository.name}-{name}-new"
    save(new / name, factor, config=config)
    (repository / name / version).mkdir(exist_ok=True)
    (new / name / "1" / "model.onnx").replace(repository / name / version / "model.onnx")
    if config:
        (new / name / "config.pbtxt").replace(repository / name / "config.pbtxt")
    shutil.rmtree(new)


def loads(server, name):
    """How often a model was loaded."""
    return server.log.read_text(encoding="utf-8").count(f"successfully loaded '{name}'")


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    first, second = made = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    for name in ("overwritten", "mid_run", "touched", "newer", "configured", "skewed", "twin"):
        save(first / name, 2.0)
    save(first / "cached", 2.0, config="response_cache { enable: true }")
    for name in ("skewed", "twin"):
        save(second / name, 2.0)
    return made


@pytest.fixture(scope="module")
def servers(repositories):
    first, second = repositories
    with PollingTriton.start([first]) as one, PollingTriton.start([second]) as two:
        yield one, two


@pytest.fixture(scope="module")
def triton(servers):
    with eaf_inference.connect([each.grpc for each in servers]) as connection:
        yield connection


@pytest.fixture(scope="module")
def alone(servers):
    with eaf_inference.connect(servers[0].grpc) as connection:
        yield connection


def test_an_overwritten_model_is_noticed_at_the_end_of_a_part(alone, repositories):
    model = alone.model("overwritten")
    expected = model.fingerprint()

    def part():
        with model.unchanged(expected):
            np.testing.assert_array_equal(model(ROWS), 2 * ROWS)
            replace(repositories[0], "overwritten", 2.001)
            until(lambda: model(ROWS)[0, 0] != 2 * ROWS[0, 0])

    with pytest.raises(ModelChanged, match=r"'overwritten' at grpc://.* changed: the scores 'y' of a probe differ"):
        part()
    with pytest.raises(ModelChanged), model.unchanged(expected):
        pytest.fail("the work was done with another model")
    again = alone.model("overwritten").fingerprint()
    assert not again.matches(expected)
    assert str(again) == str(expected)


def test_a_run_ends_before_it_mixes_the_scores_of_two_models(alone, repositories):
    model = alone.model("mid_run")

    def select(rows):
        if rows[0, 0] == 3:
            replace(repositories[0], "mid_run", 5.0)
            until(lambda: model(ROWS)[0, 0] != 2 * ROWS[0, 0])
        return rows

    chunks = [np.full((2, 2), number, np.float32) for number in range(6)]
    with ThreadPoolExecutor(1) as pool:
        run = alone.submit(model, chunks, client=pool, select=select)
        got = []
        with pytest.raises(ModelChanged, match="Chunk 3 .*Scores of two models must not mix"):
            got.extend(run)
    np.testing.assert_array_equal(np.array(got), 2 * np.array(chunks[:3]))


def test_a_run_goes_on_when_the_same_model_is_loaded_again(alone, servers, repositories):
    model = alone.model("touched")

    before = loads(servers[0], "touched")

    def select(rows):
        if rows[0, 0] == 1:
            (repositories[0] / "touched" / "1" / "model.onnx").touch()
            until(lambda: loads(servers[0], "touched") > before)
        return rows

    chunks = [np.full((2, 2), number, np.float32) for number in range(3)]
    with ThreadPoolExecutor(1) as pool:
        got = list(alone.submit(model, chunks, client=pool, select=select))
    np.testing.assert_array_equal(np.array(got), 2 * np.array(chunks))


def test_a_newer_version_in_place_of_the_one_in_use_is_named(alone, servers, repositories):
    model = alone.model("newer")
    expected = model.fingerprint()
    before = loads(servers[0], "newer")
    replace(repositories[0], "newer", 3.0, version="2")
    until(lambda: loads(servers[0], "newer") > before)
    seen = []

    def refused():
        try:
            with model.unchanged(expected):
                pass
        except ModelChanged as error:
            seen.append(str(error))
        return seen

    until(refused)  # Triton unloads the old version after it has loaded the new one
    assert "'newer' has no version 1 any more; the server has version 2" in seen[0]


def test_another_configuration_is_noticed(alone, repositories):
    model = alone.model("configured")
    expected = model.fingerprint()
    labels = 'parameters { key: "labels" value: { string_value: "{\\"y\\": [\\"top\\", \\"qcd\\"]}" } }'
    replace(repositories[0], "configured", 2.0, config=labels)
    until(lambda: alone.model("configured").spec.labels)
    with pytest.raises(ModelChanged, match="its configuration on the server is another"), model.unchanged(expected):
        pytest.fail("the work was done with another configuration")
    with pytest.raises(ModelChanged, match="not the one that it had when it was looked up"):
        model.fingerprint()


def test_a_response_cache_hides_no_change_and_is_blamed_for_old_scores(alone, repositories):
    model = alone.model("cached")
    expected = model.fingerprint()
    for _ in range(2):
        with model.unchanged(expected):
            pass
    replace(repositories[0], "cached", 3.0)
    number = itertools.count(1)
    until(lambda: np.allclose(model(rows := ROWS * np.float32(next(number))), 3 * rows))
    with pytest.raises(ModelChanged, match="a probe differ"), model.unchanged(expected):
        pytest.fail("the work was done with another model")
    with pytest.raises(ModelChanged, match="its response cache has scores of an earlier model"):
        alone.model("cached").fingerprint()


def test_every_replica_is_compared(triton, servers, repositories):
    model = triton.model("skewed")
    expected = model.fingerprint()
    with model.unchanged(expected):
        pass
    replace(repositories[1], "skewed", 2.5)
    with eaf_inference.connect(servers[1].grpc) as second:
        until(lambda: second.model("skewed")(ROWS)[0, 0] != 2 * ROWS[0, 0])
    with pytest.raises(ModelChanged, match=servers[1].grpc), model.unchanged(expected):
        pytest.fail("the work was done with different models")
    with pytest.raises(ModelChanged, match=f"{servers[1].grpc} .* beside {servers[0].grpc}"):
        model.fingerprint()


def test_the_scores_of_a_replica_that_is_gone_are_not_handed_over(triton, servers, monkeypatch):
    monkeypatch.setattr(reloads, "_AFTER", 0.5)
    model = triton.model("twin")
    expected = model.fingerprint()

    def part():
        with model.unchanged(expected):
            servers[1].child.kill()

    with pytest.raises(ServerUnavailable, match=servers[1].grpc):
        part()
    with model.unchanged(expected):  # the other one goes on
        np.testing.assert_array_equal(model(ROWS), 2 * ROWS)
