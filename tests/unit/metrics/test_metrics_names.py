"""Names that other files repeat: those of other programs' metrics, and the kinds of advice."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

import eaf_inference
from eaf_facility.envoy.accounting import access_logs
from eaf_facility.envoy.settings import Envoy
from eaf_facility.servers.prometheus import RULES
from eaf_inference.metrics.advice import Kind
from eaf_inference.metrics.names import DCGM, ENVOY, TRITON

OPENAPI = Path(eaf_inference.__file__).parent / "server" / "openapi.yaml"


def test_usage_reads_every_counter_that_envoy_keeps():
    settings = Envoy(upstreams=["grpc://triton:8001"], certificate="/tls/tls.crt", key="/tls/tls.key")
    kept = [log["typed_config"] for log in access_logs(settings) if log["name"].endswith(".stats")]
    names = {
        f"envoy_{each['stats_scope']['prefix']}_{counter['stat']['name']}"
        for each in kept
        for counter in each["counters"]
    }
    assert names == set(ENVOY)


def test_the_recording_rules_use_known_metrics_only():
    used = set(re.findall(r"\b(?:nv|DCGM_FI|envoy_eaf)_\w+", RULES.read_text()))
    assert used <= {*TRITON, *DCGM, *ENVOY}
    assert used >= {"nv_inference_count", *ENVOY} - {"envoy_eaf_bytes_out"}


def test_the_server_describes_every_kind_of_advice():
    advice = yaml.safe_load(OPENAPI.read_text())["components"]["schemas"]["Advice"]
    assert advice["properties"]["kind"]["enum"] == [kind.value for kind in Kind]
