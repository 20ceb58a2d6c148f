"""The keys that sign users' tokens: their rotation and their file."""

from __future__ import annotations

import json
import stat
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eaf_facility.hub.key_store import KeyStore
from eaf_facility.hub.keys import Key, Schedule, advanced, next_change, signing
from eaf_inference.errors import ConfigurationError

SCHEDULE = Schedule(every=1000.0, ahead=100.0, after=60.0)
pauses = st.lists(st.floats(0, 3000), min_size=1, max_size=40)


def unmade(signs_from: float) -> Key:
    """Return a key without key material, which is quick."""
    unmade.made += 1
    return Key(f"k{unmade.made}", signs_from, None)


unmade.made = 0


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@given(pauses)
def test_a_key_is_published_from_before_its_first_token_to_its_last(pauses):
    """However long the pauses between requests are."""
    now, keys = 0.0, advanced((), 0.0, SCHEDULE, unmade)
    published = {keys[0].kid: float("-inf")}  # kid -> start; the first key signs at once
    signed = {}  # kid -> time of its last token
    for pause in pauses:
        now += pause
        keys = advanced(keys, now, SCHEDULE, unmade)
        for key in keys:
            published.setdefault(key.kid, now)
        signed[signing(keys, now).kid] = now
        assert now - published[signing(keys, now).kid] >= SCHEDULE.ahead * (1 - 1e-9)
        alive = {kid for kid, when in signed.items() if now < when + SCHEDULE.after}
        assert alive <= {key.kid for key in keys}
        assert advanced(keys, now, SCHEDULE, unmade) == keys


@given(pauses)
def test_keys_change_only_at_the_announced_time(pauses):
    now, keys = 0.0, advanced((), 0.0, SCHEDULE, unmade)
    for pause in pauses:
        before = min(now + pause, next_change(keys, SCHEDULE) * (1 - 1e-9))
        assert advanced(keys, before, SCHEDULE, unmade) == keys
        now = next_change(keys, SCHEDULE)
        keys = advanced(keys, now, SCHEDULE, unmade)
        assert len(keys) <= 2


def test_the_oldest_key_signs_after_the_clock_was_set_back():
    keys = advanced((), 1000.0, SCHEDULE, unmade)
    assert signing(keys, 0.0) is keys[0]


def test_the_file_is_private_and_a_restart_finds_the_same_keys(tmp_path):
    directory, clock = tmp_path / "keys", Clock()
    first = KeyStore(directory, SCHEDULE, clock=clock)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((directory / "keys.json").stat().st_mode) == 0o600
    again = KeyStore(directory, SCHEDULE, clock=clock)
    assert [key.public for key in again.published()] == [key.public for key in first.published()]
    assert "private" not in repr(again.signing())
    clock.now += 950
    new = first.published()
    assert [key.kid for key in again.published()] == [key.kid for key in new]
    assert first.signing() is new[0]
    clock.now += 100
    assert first.signing() is new[1]
    clock.now += 60
    assert [key.kid for key in first.published()] == [new[1].kid]


@pytest.mark.parametrize(("name", "mode", "remedy"), [("", 0o750, "chmod 700"), ("keys.json", 0o640, "chmod 600")])
def test_files_that_others_can_read_are_refused_with_the_remedy(tmp_path, name, mode, remedy):
    directory = tmp_path / "keys"
    KeyStore(directory, SCHEDULE)
    (directory / name).chmod(mode)
    with pytest.raises(ConfigurationError, match=f"{directory / name}.*can be read by others.*{remedy}"):
        KeyStore(directory, SCHEDULE)


def test_a_corrupt_file_is_neither_overwritten_nor_shown(tmp_path):
    directory = tmp_path / "keys"
    KeyStore(directory, SCHEDULE)
    file = directory / "keys.json"
    text = file.read_text()[:-30]
    file.write_text(text)
    with pytest.raises(ConfigurationError, match="cannot be read.*Restore the file, or remove it") as raised:
        KeyStore(directory, SCHEDULE)
    assert "PRIVATE" not in str(raised.value)
    assert file.read_text() == text


def test_a_symbolic_link_is_refused(tmp_path):
    directory = tmp_path / "keys"
    KeyStore(directory, SCHEDULE)
    (directory / "keys.json").rename(tmp_path / "elsewhere")
    (directory / "keys.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="does not belong to the token service"):
        KeyStore(directory, SCHEDULE)


def test_a_running_service_keeps_its_keys_if_the_file_is_unusable(tmp_path, caplog):
    directory, clock = tmp_path / "keys", Clock()
    store = KeyStore(directory, SCHEDULE, clock=clock)
    before = store.published()
    (directory / "keys.json").chmod(0o644)
    clock.now += 950
    assert store.published() == before
    assert "can be read by others" in caplog.text
    (directory / "keys.json").chmod(0o600)
    clock.now += 61
    assert len(store.published()) == 2


def test_concurrent_processes_make_only_one_key(tmp_path):
    directory, clock = tmp_path / "keys", Clock()
    stores = [KeyStore(directory, SCHEDULE, clock=clock) for _ in range(8)]
    clock.now += 950
    found = []
    threads = [threading.Thread(target=lambda store=store: found.append(store.published())) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({tuple(key.kid for key in keys) for keys in found}) == 1
    assert len(json.loads((directory / "keys.json").read_text())["keys"]) == 2
