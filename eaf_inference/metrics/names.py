"""The names of other programs' metrics, and what we call them."""

from __future__ import annotations

import enum

__all__ = ["DCGM", "ENVOY", "ENVOY_UPTIME", "FIELD_LABEL", "TRITON", "Of"]

_MEBIBYTE = 1024.0 * 1024.0


class Of(enum.Enum):
    """What a metric of Triton describes."""

    COUNTER = "a model, since the server started"
    GAUGE = "a model, now"
    GPU = "a GPU, now"
    HOST = "the machine, now"


# Triton's name → what it describes, and our field.
TRITON = {
    "nv_inference_count": (Of.COUNTER, "inferences"),
    "nv_inference_exec_count": (Of.COUNTER, "executions"),
    "nv_inference_request_success": (Of.COUNTER, "requests"),
    "nv_inference_request_failure": (Of.COUNTER, "failures"),
    "nv_inference_queue_duration_us": (Of.COUNTER, "queue_us"),
    "nv_inference_compute_input_duration_us": (Of.COUNTER, "compute_input_us"),
    "nv_inference_compute_infer_duration_us": (Of.COUNTER, "compute_infer_us"),
    "nv_inference_compute_output_duration_us": (Of.COUNTER, "compute_output_us"),
    "nv_inference_pending_request_count": (Of.GAUGE, "pending"),
    "nv_gpu_utilization": (Of.GPU, "utilization"),
    "nv_gpu_memory_used_bytes": (Of.GPU, "memory_used"),
    "nv_gpu_memory_total_bytes": (Of.GPU, "memory_total"),
    "nv_gpu_power_usage": (Of.GPU, "power"),
    "nv_cpu_utilization": (Of.HOST, "cpu_utilization"),
    "nv_cpu_memory_used_bytes": (Of.HOST, "memory_used"),
    "nv_cpu_memory_total_bytes": (Of.HOST, "memory_total"),
}

# dcgm-exporter's name → our field, and the factor that gives our unit.
DCGM = {
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": ("engine", 1.0),
    "DCGM_FI_DEV_GPU_UTIL": ("utilization", 0.01),
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": ("tensor", 1.0),
    "DCGM_FI_PROF_DRAM_ACTIVE": ("dram", 1.0),
    "DCGM_FI_DEV_FB_USED": ("memory_used", _MEBIBYTE),
    "DCGM_FI_DEV_FB_FREE": ("memory_free", _MEBIBYTE),
    "DCGM_FI_DEV_POWER_USAGE": ("power", 1.0),
}

# Envoy's counter, by user and model → our field. `eaf_facility.envoy.accounting` defines what each counts.
ENVOY = {
    "envoy_eaf_requests": "requests",
    "envoy_eaf_rows": "rows",
    "envoy_eaf_bytes_in": "bytes_in",
    "envoy_eaf_bytes_out": "bytes_out",
    "envoy_eaf_failures": "failures",
}
ENVOY_UPTIME = "envoy_server_uptime"  # seconds

FIELD_LABEL = "eaf_field"  # the label in which our queries have Prometheus return the field
