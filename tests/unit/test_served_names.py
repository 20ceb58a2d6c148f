"""The names of users' models on the server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eaf_inference.deploy.names import checked_name, checked_served_name, escaped, owner_of, served_name
from eaf_inference.errors import ConfigurationError

USERS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,30}", fullmatch=True).filter(lambda name: ".." not in name)


@pytest.mark.parametrize(
    ("user", "owner"),
    [
        ("alice", "alice"),
        ("Alice-2", "Alice-2"),
        ("a_b", "a_5fb"),
        ("alice@fnal.gov", "alice_40fnal_2egov"),
        ("../bob", "_2e_2e_2fbob"),
        ("Zoë", "Zo_c3_ab"),
        ("a\n", "a_0a"),
        ("١", "_d9_a1"),  # a digit, but not an ASCII one
    ],
)
def test_an_owner_is_the_escaped_user(user, owner):
    assert escaped(user) == owner


@given(USERS, USERS)
def test_two_users_never_share_an_owner(one, other):
    assert (escaped(one) == escaped(other)) == (one == other)


@given(USERS, NAMES)
def test_the_first_dot_ends_the_owner(user, name):
    served = served_name(user, name)
    assert served.partition(".") == (escaped(user), ".", name)
    assert owner_of(served) == escaped(user)
    assert checked_served_name(served) == served


@pytest.mark.parametrize("served", ["tagger", "my_tagger.v2", "a_41.x", "a_zz.x", "_ff.x", ".x", "a.", ""])
def test_a_name_without_an_owner_has_none(served):
    assert owner_of(served) is None


def test_without_users_a_model_keeps_its_name():
    assert served_name(None, "my_tagger.v2") == "my_tagger.v2"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a..b",
        "../a",
        "a/b",
        "a\\b",
        "a b",
        "a\n",
        "-a",
        "_a",
        ".a",
        "ä",
        "a\0",
        "x" * 101,
        "a%2e",
        None,
        3,
    ],
)
def test_other_names_are_refused_with_what_is_allowed(name):
    with pytest.raises(ConfigurationError, match="letters, digits"):
        checked_name(name)
    with pytest.raises(ConfigurationError, match="letters, digits"):
        served_name("alice", name)


@pytest.mark.parametrize("user", ["", "\ud800"])
def test_a_user_without_a_usable_name_owns_nothing(user):
    with pytest.raises(ConfigurationError):
        served_name(user, "tagger")


def test_a_name_that_is_too_long_with_its_owner_is_refused():
    with pytest.raises(ConfigurationError, match="shorter"):
        served_name("ü" * 30, "x" * 60)


@pytest.mark.parametrize("served", ["", "..", "a/b", "alice..x", ".x", "_5f", "ä.x", "x" * 221, "a\n", "-x"])
def test_a_store_takes_no_other_directory_names(served):
    with pytest.raises(ConfigurationError):
        checked_served_name(served)
