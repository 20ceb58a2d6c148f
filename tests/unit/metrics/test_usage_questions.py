"""Queries for usage, and parsing of the answers."""

from __future__ import annotations

import json

import pytest

from eaf_inference.errors import BadReply, ConfigurationError
from eaf_inference.metrics.usage import (
    Usage,
    earlier_lives,
    growth_in,
    rows_of,
    seconds_of,
    usage_expression,
)
from eaf_inference.metrics.usage_by_owner import OwnedUsage, by_owner, of_owner


def answer(*series):
    found = [{"metric": labels, "value": [0, str(value)]} for labels, value in series]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": found}}).encode()


def series(field, value, user="alice", model="particlenet"):
    return {"user": user, "model": model, "eaf_field": field}, value


def test_a_row_is_one_user_and_one_model():
    growth = growth_in(
        answer(
            series("requests", 3), series("rows", 300), series("failures", 1, model=""), series("rows", 0, user="bob")
        )
    )
    assert rows_of(growth, {}, ()) == (
        Usage("alice", "", failures=1),
        Usage("alice", "particlenet", requests=3, rows=300),
    )


def test_counts_from_before_a_reset_are_added_and_estimated():
    growth = growth_in(answer(series("requests", 2), series("requests_before", 4), series("requests_reset", 1)))
    earlier = growth_in(answer(series("requests", 7)))
    (row,) = rows_of(growth, earlier, {("alice", "particlenet")})
    assert (row.requests, row.estimated) == (5, True)


def test_usage_is_never_negative():
    growth = growth_in(answer(series("requests", 2), series("requests_before", 9), series("rows", 5)))
    assert rows_of(growth, {}, ()) == (Usage("alice", "particlenet", rows=5),)


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("alice", '"alice"'),
        ('a"} or up{x="', r'"a\"} or up{x=\""'),
        ("back\\slash\nand é 😀", r'"back\\slash\nand é 😀"'),
    ],
)
def test_a_user_name_is_quoted_in_the_query(name, quoted):
    for question in (usage_expression(name, since=3600), earlier_lives(name, since=3600)):
        assert f"{{user={quoted}}}" in question
        assert question.count("user=") == question.count(quoted)


def test_an_invalid_name_duration_or_matcher_is_refused():
    with pytest.raises(ConfigurationError, match="not Unicode"):
        usage_expression("\udc80", since=3600)
    for since in (0, 59, 1e9, float("nan")):
        with pytest.raises(ConfigurationError, match="Expected a minute to a year"):
            usage_expression(None, since=since)
    with pytest.raises(ConfigurationError, match="not a matcher"):
        usage_expression(None, since=3600, matchers=["} or up{"])


def test_only_matching_envoys_are_queried():
    question = usage_expression("alice", since=3600, matchers=['namespace="ours"'])
    assert 'envoy_eaf_rows{namespace="ours",user="alice"}' in question
    assert 'envoy_server_uptime{namespace="ours"}' in question


def test_durations_have_a_number_and_a_unit():
    assert [seconds_of(text) for text in ("90s", "30m", "12h", "1d", " 2w ")] == [90, 1800, 43_200, 86_400, 1_209_600]
    for text in ("", "1", "d", "-1d", "1.5h", "1 d", "1y"):
        with pytest.raises(ConfigurationError, match="Expected one such as 30m"):
            seconds_of(text)


def test_an_owners_models_are_queried_for_all_users_beside_her_own_usage():
    for question in (usage_expression, earlier_lives):
        alone, both = (question("alice", since=3600, matchers=['a="b"'], owner=each) for each in (None, "al-ice"))
        assert both.startswith(f"{alone} or ")
        assert r'{a="b",model=~"al\\-ice[.].+"}' in both
        assert "model=~" not in alone
    assert 'envoy_server_uptime{a="b"}' in both or "uptime" not in both


USED = (
    Usage("alice", "alice.tagger", requests=3, rows=300, bytes_in=10),
    Usage("alice", "particlenet", requests=1, rows=1),
    Usage("bob", "alice.tagger", requests=2, rows=20, failures=1, estimated=True),
    Usage("bob", "alice.other", failures=4),
    Usage("", "alice.other", failures=1),
    Usage("carol", "alice.other", requests=1, rows=900),
    Usage("carol", "alice2.tagger", requests=7),
    Usage("bob", "", failures=2),
)


def test_an_owner_learns_how_many_users_her_models_have_and_no_names():
    tagger = OwnedUsage(
        "alice", "alice.tagger", users=2, requests=5, rows=320, failures=1, bytes_in=10, estimated=True
    )
    other = OwnedUsage("alice", "alice.other", users=1, requests=1, rows=900, failures=5)
    assert of_owner(USED, "alice") == (other, tagger)
    assert of_owner(USED, "bob") == ()
    assert "bob" not in str([each.as_dict() for each in of_owner(USED, "alice")])


def test_usage_by_owner_sums_over_models_and_users():
    facility, alice, alice2 = by_owner(USED)
    assert facility == OwnedUsage("", models=1, users=1, requests=1, rows=1, failures=2)
    assert (alice.owner, alice.models, alice.users, alice.requests, alice.rows) == ("alice", 2, 3, 6, 1220)
    assert alice2 == OwnedUsage("alice2", models=1, users=1, requests=7)


def test_an_invalid_answer_is_refused():
    with pytest.raises(BadReply):
        growth_in(b"<html>")
