"""The token service's check of a user's config.pbtxt: what it writes, and every trick that it refuses."""

from __future__ import annotations

import json

import pytest
from google.protobuf import text_format

from eaf_facility.hub.checked_config import LARGEST_CONFIG, RefusedConfig, checked_config
from eaf_facility.hub.store_files import CODE, CONFIGS, OWN_CODE, TRAVERSAL, harmful
from eaf_facility.hub.store_policy import session_policy
from eaf_facility.servers.s3_access import Request, allows
from eaf_inference.inference import protocol
from eaf_inference.inference.parameters import DEPLOYMENT, PARAMETERS

NAME = "alice.tagger"
BACKENDS = ("ensemble", "onnxruntime", "pytorch")
FILES = ("config.pbtxt", "3/model.onnx", "3/.upload.json", "4/.upload.json", "4/deployed.pbtxt")
PIN = "version_policy: { specific: { versions: [3] } }"
GOOD = f'backend: "onnxruntime"\nmax_batch_size: 64 # rows\n{PIN}\n'


def check(text, *, files=FILES, python=False):
    body = text if isinstance(text, bytes) else text.encode()
    return checked_config(body, served_name=NAME, files=files, backends=BACKENDS, python=python)


def test_a_configuration_is_written_again_as_it_was_understood():
    text = GOOD + 'parameters { key: "preprocess" value { string_value: "a/b\\n{\\"µ\\": \\"..\\"}" } }'
    done = check(text)
    assert (done.version, done.backend) == (3, "onnxruntime")
    again = text_format.Parse(done.text, protocol.ModelConfig())
    assert again == text_format.Parse(text + f' name: "{NAME}"', protocol.ModelConfig())
    assert check(done.text).text == done.text


@pytest.mark.parametrize("key", [*PARAMETERS, DEPLOYMENT])
def test_parameters_that_the_client_reads_are_free_text(key):
    text = f'{GOOD} parameters {{ key: "{key}" value {{ string_value: "/etc/passwd" }} }}'
    assert "/etc/passwd" in check(text).text


def test_harmless_fields_are_kept():
    more = """
        input { name: "/dense/Relu:0" data_type: TYPE_FP32 dims: [-1] }
        output { name: "x" data_type: TYPE_FP32 dims: [2] label_filename: "labels.txt" }
        instance_group { count: 4 kind: KIND_GPU gpus: [0, 1, 2, 3, 4, 5, 6, 7] }
        optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt"
          parameters { key: "precision_mode" value: "FP16" } } } }
        model_warmup { name: "one" batch_size: 1
          inputs { key: "x" value { data_type: TYPE_FP32 dims: [8] zero_data: true } } }
        parameters { key: "intra_op_thread_count" value { string_value: "2" } }
        dynamic_batching { max_queue_delay_microseconds: 500 } default_model_filename: "model.onnx"
    """
    assert "tensorrt" in check(GOOD + more).text


@pytest.mark.parametrize(("key", "value"), [("TF_USE_PER_SESSION_THREADS", "true"), ("ENABLE_THREADS", "False")])
def test_flags_about_threads_are_no_numbers_of_threads(key, value):
    assert key in check(parameter(key, value)).text


def test_python_models_may_call_their_own_parameters_anything():
    text = parameter("multithreaded", "as many as there are").replace("onnxruntime", "python")
    assert "multithreaded" in check(text, files=("3/model.py",), python=True).text


def test_people_of_the_groups_may_have_python_models():
    text = f"""backend: "python" {PIN} parameters {{ key: "EXECUTION_ENV_PATH"
        value {{ string_value: "$$TRITON_MODEL_DIRECTORY/env.tar.gz" }} }}"""
    assert check(text, files=("3/model.py",), python=True).backend == "python"
    assert check(f'backend: "pytorch" platform: "torch_aoti" {PIN}', python=True).version == 3


def test_an_ensemble_of_own_models_is_allowed():
    text = (
        f'platform: "ensemble" {PIN} ensemble_scheduling {{ step {{ model_name: "alice.one" model_version: -1 }} }}'
    )
    assert check(text).backend == "ensemble"


def python_environment(path):
    return f'{GOOD} parameters {{ key: "EXECUTION_ENV_PATH" value {{ string_value: "{path}" }} }}'


def accelerated(key, value):
    accelerator = f'gpu_execution_accelerator {{ name: "tensorrt" parameters {{ key: "{key}" value: "{value}" }} }}'
    return f"{GOOD} optimization {{ execution_accelerators {{ {accelerator} }} }}"


def ensemble_of(step):
    return f'platform: "ensemble" {PIN} ensemble_scheduling {{ step {{ model_name: {step} model_version: -1 }} }}'


def stateful(rest):
    return f"{GOOD} sequence_batching {{ state {{ {rest} }} }}"


def parameter(key, value):
    return f'{GOOD} parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'


def warm_up(rest):
    return f'{GOOD} model_warmup {{ name: "w" batch_size: 1 {rest} }}'


@pytest.mark.parametrize(
    ("text", "code"),
    [
        # another model
        (f'name: "bob.tagger" {GOOD}', "wrong_name"),
        (f'name: "tagger" {GOOD}', "wrong_name"),
        # no configuration
        (b"\xff\xfe", "not_a_config"),
        ("", "no_backend"),
        ("backend: onnxruntime", "not_a_config"),
        (f'{GOOD} backdoor: "yes"', "not_a_config"),
        (f"{GOOD} [type.googleapis.com/inference.ModelConfig] {{ }}", "not_a_config"),
        (f'{GOOD} backend: "python"', "not_a_config"),
        (f"{GOOD} {PIN}", "not_a_config"),
        (f"{GOOD} 77: 1", "not_a_config"),
        ("input {" * 5000, "not_a_config"),
        (GOOD + "#" * LARGEST_CONFIG, "too_large"),
        (f'{GOOD} metric_tags {{ key: "x" value: "\\0" }}', "not_a_config"),
        # the backend, also where Triton would choose it
        (PIN, "no_backend"),
        (f'{PIN} default_model_filename: "model.py"', "no_backend"),
        (f'{PIN} platform: "onnxruntime_onnx"', "no_backend"),
        (f'backend: "python" {PIN}', "backend_not_allowed"),
        (f'backend: "Python" {PIN}', "backend_not_allowed"),
        (f'backend: "python " {PIN}', "backend_not_allowed"),
        (f'backend: "../python" {PIN}', "backend_not_allowed"),
        (f'backend: "pyth\\x6fn" {PIN}', "backend_not_allowed"),
        (f'backend: "vllm" {PIN}', "backend_not_allowed"),
        (f'backend: "onnxruntime_custom" {PIN}', "backend_not_allowed"),
        (f'backend: "upload_in_progress" {PIN}', "backend_not_allowed"),
        (f'backend: "pytorch" platform: "torch_aoti" {PIN}', "backend_not_allowed"),
        (f'{GOOD} platform: "python"', "wrong_platform"),
        (f'{GOOD} platform: "ensemble"', "wrong_platform"),
        (f'{GOOD} ensemble_scheduling {{ step {{ model_name: "alice.a" }} }}', "wrong_platform"),
        (f'backend: "ensemble" {PIN}', "wrong_platform"),
        (f'platform: "ensemble" {PIN}', "wrong_platform"),
        (f'{GOOD} runtime: "model.py"', "field_not_allowed"),
        (f'{GOOD} runtime: "libtriton_python.so"', "field_not_allowed"),
        # not exactly one version that is there
        ('backend: "onnxruntime"', "no_version"),
        ('backend: "onnxruntime" version_policy: { latest: { num_versions: 1 } }', "no_version"),
        ('backend: "onnxruntime" version_policy: { all: { } }', "no_version"),
        ('backend: "onnxruntime" version_policy: { specific: { versions: [3, 4] } }', "no_version"),
        ('backend: "onnxruntime" version_policy: { specific: { versions: [-3] } }', "no_version"),
        ('backend: "onnxruntime" version_policy: { specific: { versions: [4] } }', "no_such_version"),
        ('backend: "onnxruntime" version_policy: { specific: { versions: [33] } }', "no_such_version"),
        # files elsewhere
        (f'{GOOD} default_model_filename: "../../bob.tagger/1/model.onnx"', "not_a_file_name"),
        (f'{GOOD} default_model_filename: "/etc/passwd"', "not_a_file_name"),
        (f'{GOOD} default_model_filename: ".."', "not_a_file_name"),
        (f'{GOOD} default_model_filename: "a\\\\b"', "not_a_file_name"),
        (f'{GOOD} cc_model_filenames {{ key: "7.5" value: "../x" }}', "not_a_file_name"),
        (f'{GOOD} output {{ name: "x" label_filename: "../../../etc/passwd" }}', "not_a_file_name"),
        (warm_up('inputs { key: "x" value { input_data_file: "../x" } }'), "not_a_file_name"),
        (
            f'{GOOD} sequence_batching {{ state {{ initial_state {{ data_file: "/etc/passwd" }} }} }}',
            "not_a_file_name",
        ),
        (f'{GOOD} model_operations {{ op_library_filename: "x.so" }}', "field_not_allowed"),
        (f'{GOOD} model_repository_agents {{ agents {{ name: "checksum" }} }}', "field_not_allowed"),
        (python_environment("$$TRITON_MODEL_DIRECTORY/env.tar.gz"), "parameter_not_allowed"),
        (python_environment("env"), "parameter_not_allowed"),
        (f'{GOOD} parameters {{ key: "TF_INIT_OPS_FILE" value {{ string_value: "x" }} }}', "parameter_not_allowed"),
        (f'{GOOD} parameters {{ key: "x" value {{ string_value: "/etc" }} }}', "parameter_not_allowed"),
        (f'{GOOD} parameters {{ key: "Labels" value {{ string_value: "../x" }} }}', "parameter_not_allowed"),
        (accelerated("trt_engine_cache_path", "cache"), "parameter_not_allowed"),
        (accelerated("x", "/tmp/cache"), "parameter_not_allowed"),  # noqa: S108
        # others' models
        (ensemble_of('"bob.tagger"'), "not_your_model"),
        (ensemble_of('"facilitys"'), "not_your_model"),
        (ensemble_of('"alice"'), "not_your_model"),
        (ensemble_of('"alice.one" model_namespace: "/models"'), "not_your_model"),
        # others' share
        (f"{GOOD} instance_group {{ count: 1000 }}", "too_large_a_number"),
        (f"{GOOD} instance_group {{ rate_limiter {{ priority: 1 }} }}", "field_not_allowed"),
        (f"{GOOD} dynamic_batching {{ priority_levels: 1000000000 }}", "too_large_a_number"),
        (f'backend: "onnxruntime" {PIN} max_batch_size: 2000000000', "too_large_a_number"),
        (warm_up("count: 4000000000"), "too_large_a_number"),
        # others' share, in pieces that are each small enough
        (f"{GOOD} {'instance_group { count: 16 }' * 2}", "too_large_a_number"),
        (f"{GOOD} {'instance_group { }' * 17}", "too_large_a_number"),
        (f"{GOOD} instance_group {{ kind: KIND_GPU gpus: [{', '.join(['0'] * 17)}] }}", "too_large_a_number"),
        (f"{warm_up('count: 600')} model_warmup {{ count: 600 }}", "too_large_a_number"),
        (f"{GOOD} {' model_warmup { }' * 1001}", "too_large_a_number"),
        (stateful("dims: [1000000, 1000000]"), "too_large_a_number"),
        (stateful("initial_state { dims: [1000000, 1000000] zero_data: true }"), "too_large_a_number"),
        (stateful("initial_state { dims: [100000000] }" * 3), "too_large_a_number"),
        (parameter("intra_op_thread_count", "100000"), "too_large_a_number"),
        (parameter("INTER_OP_THREAD_COUNT", "+999"), "too_large_a_number"),
        (accelerated("num_of_threads", "1e6"), "too_large_a_number"),
        (f'{GOOD} model_warmup {{ name: "w" batch_size: 4000000000 }}', "too_large_a_number"),
        (
            warm_up('inputs { key: "x" value { dims: [1000000, 1000000] zero_data: true } }'),
            "too_large_a_number",
        ),
    ],
)
def test_a_trick_is_refused(text, code):
    with pytest.raises(RefusedConfig) as raised:
        check(text)
    assert raised.value.code == code
    assert len(str(raised.value)) < 700


def test_python_people_keep_within_their_version():
    for path in ("/opt/env.tar.gz", "$$TRITON_MODEL_DIRECTORY/../bob.x/env", "s3://elsewhere/env"):
        text = (
            f'backend: "python" {PIN} parameters {{ key: "EXECUTION_ENV_PATH" value {{ string_value: "{path}" }} }}'
        )
        with pytest.raises(RefusedConfig, match="EXECUTION_ENV_PATH"):
            check(text, files=("3/model.py",), python=True)


HARMFUL = [
    *("libtriton_onnxruntime.so", "3/libtriton_onnxruntime.so", "libtriton_x", "3/a.so", "3/a.so.1"),
    *("3/../x", "3//x", "3/./x", "configs/other.pbtxt"),
]


@pytest.mark.parametrize("name", [*HARMFUL, "3/model.py", "model.py", "3/package.pt2"])
def test_a_file_that_triton_might_run_is_refused(name):
    with pytest.raises(RefusedConfig) as raised:
        check(GOOD, files=(*FILES, name))
    assert raised.value.code == "harmful_file"
    assert bool(harmful(name, python=True)) == (name in HARMFUL)


def test_every_text_field_of_the_protocol_was_judged():
    """A new field of Triton's configuration must be judged here before anybody's description contains it."""
    judged = {
        *("agents.name", "agents.parameters", "control_input.name", "cpu_execution_accelerator.name"),
        *("gpu_execution_accelerator.name", "cpu_execution_accelerator.parameters"),
        *("gpu_execution_accelerator.parameters", "resources.name", "state.input_name", "state.output_name"),
        *("initial_state.name", "initial_state.data_file", "step.model_name", "step.model_namespace"),
        *("step.input_map", "step.output_map", "instance_group.name", "instance_group.profile"),
        *("instance_group.host_policy", "input.name", "output.name", "output.label_filename", "name", "platform"),
        *("backend", "runtime", "batch_input.target_name", "batch_input.source_input", "batch_output.target_name"),
        *("batch_output.source_input", "default_model_filename", "cc_model_filenames", "metric_tags"),
        *("parameters", "parameters.string_value", "model_warmup.name", "model_warmup.inputs"),
        *("graph_spec.input", "graph_lower_bound.input", "inputs.input_data_file"),
        *("model_operations.op_library_filename", "metric_identifier.family"),
    }
    assert {name.lstrip(".") for name in text_fields(protocol.ModelConfig.DESCRIPTOR)} == judged


def text_fields(descriptor, within=""):
    found = set()
    for field in descriptor.fields:
        message = field.message_type
        if field.type == field.TYPE_STRING:
            found.add(f"{within}.{field.name}")
        elif message is not None and message.GetOptions().map_entry:
            if message.fields_by_name["key"].type == field.TYPE_STRING:
                found.add(f"{within}.{field.name}")
            if message.fields_by_name["value"].message_type is not None:
                found |= text_fields(message.fields_by_name["value"].message_type, field.name)
        elif message is not None:
            found |= text_fields(message, field.name)
    return found


BUCKET = "arn:aws:s3:::models"


@pytest.mark.parametrize(
    ("action", "key", "allowed"),
    [
        ("PutObject", "users/alice.tagger/3/model.onnx", True),
        ("PutObject", "users/alice.tagger/3/saved/variables/variables.index", True),
        ("GetObject", "users/alice.tagger/config.pbtxt", True),
        ("DeleteObject", "users/alice.tagger/3/model.onnx", True),
        ("PutObject", "users/alice.tagger/config.pbtxt", False),
        ("DeleteObject", "users/alice.tagger/config.pbtxt", False),
        ("PutObject", "users/alice.tagger/configs/x.pbtxt", False),
        ("PutObject", "users/alice.tagger/3/libtriton_onnxruntime.so", False),
        ("PutObject", "users/alice.tagger/libtriton_upload_in_progress.so", False),
        ("PutObject", "users/alice.tagger/3/../../bob.tagger/1/x", False),
        ("PutObject", "users/alice.tagger//config.pbtxt", False),
        ("PutObject", "users/alice.tagger/3/", False),  # no file, which the quota does not count
        ("PutObject", "users/alice.tagger/3/model.py", False),
        ("PutObject", "users/alice2.tagger/1/x", False),
        ("PutObject", "users/alice_2ex.tagger/1/x", False),
        ("GetObject", "users/bob.tagger/1/x", False),
        ("PutObject", "users/alicetagger/1/x", False),
        ("PutObject", "alice.tagger/1/x", False),
        ("PutObject", "users/alice.tagger", False),
        ("PutObjectAcl", "users/alice.tagger/3/model.onnx", False),
    ],
)
def test_keys_reach_the_users_own_files_only(action, key, allowed):
    policy = session_policy("models", "users", "alice", python=False, writes=True)
    assert allows(policy, Request(f"s3:{action}", f"{BUCKET}/{key}")) == allowed


def test_keys_list_the_users_own_prefix_only():
    policy = session_policy("models", "users", "alice", python=False, writes=True)
    lists = {prefix: allows(policy, Request("s3:ListBucket", BUCKET, prefix)) for prefix in LISTED}
    assert [prefix for prefix, allowed in lists.items() if allowed] == ["users/alice.", "users/alice.tagger/3/"]
    assert len(policy) < 2048, "the limit of AWS"


LISTED = (None, "", "users/", "users/alice", "users/alice.", "users/alice.tagger/3/", "users/bob.", "users/alice2.")


def test_keys_without_a_prefix_or_room_or_with_python():
    policy = session_policy("models", "", "alice", python=True, writes=True)
    assert allows(policy, Request("s3:PutObject", f"{BUCKET}/alice.tagger/3/model.py"))
    assert not allows(policy, Request("s3:PutObject", f"{BUCKET}/alice.tagger/3/libtriton_x.so"))
    full = session_policy("models", "", "alice", python=True, writes=False)
    assert not allows(full, Request("s3:PutObject", f"{BUCKET}/alice.tagger/3/model.onnx"))
    assert allows(full, Request("s3:DeleteObject", f"{BUCKET}/alice.tagger/3/model.onnx"))


@pytest.mark.parametrize("name", [*HARMFUL, "3/model.py", "3/model.onnx", "3/saved/x.index"])
def test_keys_and_configurations_forbid_the_same_files(name):
    patterns = (*CONFIGS, *CODE, *TRAVERSAL, *OWN_CODE)
    denied = {"Effect": "Deny", "Action": "*", "Resource": list(patterns)}
    allowed = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    policy = json.dumps({"Statement": [denied, allowed]})
    assert allows(policy, Request("s3:PutObject", f"users/{NAME}/{name}")) == (not harmful(name, python=False))
