"""The token service in front of the model store: real keys of an S3 stand-in, and every attack refused and logged."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from http.client import HTTPConnection
from itertools import product
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import yaml
from hub_facility import HubFacility, ask
from polled_store import deployed_versions

from eaf_facility.hub import store_endpoints
from eaf_facility.process.server import owned_directory
from eaf_facility.servers.jupyterhub import GROUP, JupyterHubServer, Services
from eaf_facility.servers.token_service import TokenServiceServer
from eaf_inference.auth.model_store import HubPublisher, StoreKeys
from eaf_inference.auth.token_service import TokenService
from eaf_inference.deploy.published import placeholder
from eaf_inference.deploy.store import Store
from eaf_inference.errors import DeploymentRefused, NotAuthorized, ServerUnavailable

moto_server = pytest.importorskip("moto.server")
pytest.importorskip("s3fs")

OWN = {"key": "SERVICEKEY0000000000", "secret": "the-secret-of-the-service"}
USERS = {"alice": [GROUP, "python-people"], "bob": [GROUP], "a": [GROUP], "a.b": [GROUP], "carol": []}
ROLE = "arn:aws:iam::123456789012:role/eaf-models"
MOST_BYTES = 200_000


@contextmanager
def s3_stand_in():
    """Run moto behind the rules of S3 in this process; yield its URL."""
    from werkzeug.serving import WSGIRequestHandler, make_server

    from eaf_facility.servers.s3_access import guarded

    class Quiet(WSGIRequestHandler):
        def log(self, *_):
            """Log nothing: addresses may hold keys."""

    app = guarded(
        moto_server.DomainDispatcherApplication(moto_server.create_backend_app), {OWN["key"]: OWN["secret"]}
    )
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@cache
def client(endpoint, key, secret, token=None):
    """Return a client of S3; making one takes longer than most tests."""
    keys = {"aws_access_key_id": key, "aws_secret_access_key": secret, "aws_session_token": token}
    return session().create_client("s3", region_name="us-east-1", endpoint_url=endpoint, **keys)


@cache
def session():
    from botocore.session import get_session

    return get_session()


@dataclass
class StoreFacility(HubFacility):
    endpoint: str
    known: dict = field(default_factory=dict)

    def hub_token(self, user):
        """Return a Hub token of this user, or the token given."""
        if user not in self.known:
            self.known[user] = user.removeprefix("token:") if user.startswith("token:") else self.token_of(user)[0]
        return self.known[user]

    def request(self, user, method, path, body=None):
        """Send a request to the service; return its status and the JSON of its reply."""
        reply = ask(f"{self.tokens.base_url}store/{path}", self.hub_token(user), method=method, data=body)
        return reply.status, reply.data

    def put(self, user, name, text):
        return self.request(user, "PUT", f"models/{name}/config", text.encode())

    def s3(self, user):
        keys = self.request(user, "POST", "keys", b"")[1]
        return client(self.endpoint, keys["key"], keys["secret"], keys["token"])

    def own(self):
        return client(self.endpoint, **OWN)

    def service_of(self, user):
        return TokenService(
            self.tokens.base_url, environment={"JUPYTERHUB_API_TOKEN": self.hub_token(user)}, timeout=30
        )

    def store_of(self, user):
        service = self.service_of(user)
        return Store(
            "s3://models/users", endpoint=self.endpoint, key=StoreKeys(service), publisher=HubPublisher(service)
        )

    def log(self):
        lines = self.tokens.log.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.fixture(scope="module")
def facility():
    """A Hub, the token service, and an S3 stand-in with the bucket `models`."""
    with s3_stand_in() as endpoint, owned_directory("eaf-inference-store-test-") as directory:
        client(endpoint, **OWN).create_bucket(Bucket="models")
        key_file = directory / "key.json"
        key_file.touch(0o600)
        key_file.write_text(json.dumps(OWN), encoding="utf-8")
        hub = JupyterHubServer(USERS)
        configuration = {
            "Facility": {
                "model_store": "s3://models/users",
                "model_store_endpoint": endpoint,
                "model_store_service": True,
                "most_models": 2,
                "most_model_bytes": MOST_BYTES,
            },
            "TokenIssuer": {"burst": 500},
            "ModelStore": {"key_file": str(key_file), "role": ROLE, "python_groups": ["python-people"]},
        }
        tokens = TokenServiceServer(hub.api_url, configuration, directory / "service")
        hub.services = Services(tokens.url)
        try:
            tokens.launch()
            hub.launch()
            tokens.wait_until_ready()
            hub.wait_until_ready()
            yield StoreFacility(hub, tokens, None, None, endpoint)
        finally:
            for server in (hub, tokens):
                server.ask_to_stop()
            for server in (hub, tokens):
                server.stop()


@pytest.fixture
def model(facility):
    """Upload a version of alice's and bob's models without publishing it."""
    for key in ("alice.m/1/model.onnx", "bob.m/1/model.onnx"):
        facility.own().put_object(Bucket="models", Key=f"users/{key}", Body=b"x" * 100)
    yield
    for each in facility.own().list_objects_v2(Bucket="models").get("Contents", ()):
        facility.own().delete_object(Bucket="models", Key=each["Key"])


def config(version=1, rest="", backend="onnxruntime"):
    return f'backend: "{backend}" version_policy {{ specific {{ versions: [{version}] }} }} {rest}'


def text_of(facility, name):
    return facility.own().get_object(Bucket="models", Key=f"users/{name}/config.pbtxt")["Body"].read().decode()


def newest(facility, name):
    """Return the files of a model with the latest time of change, which is in whole seconds."""
    prefix = f"users/{name}/"
    found = facility.own().list_objects_v2(Bucket="models", Prefix=prefix)["Contents"]
    times = {each["Key"][len(prefix) :]: each["LastModified"].replace(microsecond=0) for each in found}
    return [path for path, time in times.items() if time == max(times.values())]


def test_a_model_is_uploaded_published_rolled_back_and_removed(facility, tmp_path):
    store = facility.store_of("bob")
    path = tmp_path / "model.onnx"
    for content in (b"first", b"second"):
        path.write_bytes(content)
        version = store.upload("bob.tagger", {"model.onnx": path})
        store.publish("bob.tagger", version, config(version))
        assert newest(facility, "bob.tagger") == ["config.pbtxt"]  # or else Triton does not look at it
    assert store.pinned_version("bob.tagger") == 2
    assert store.rollback("bob.tagger") == 1
    assert newest(facility, "bob.tagger") == ["config.pbtxt"]
    assert (store.models("bob"), store.pinned_version("bob.tagger")) == (["bob.tagger"], 1)
    assert deployed_versions(store, "bob.tagger") == [1, 2]
    store.remove("bob.tagger")
    assert facility.own().list_objects_v2(Bucket="models")["KeyCount"] == 0
    events = [(line["event"], line.get("version")) for line in facility.log() if line.get("model") == "bob.tagger"]
    published = ["publish"] * 5
    assert events == [*zip(published, [None, 1, 2, 1, None], strict=True), ("unpublish", None)]


def test_a_half_upload_is_removed_as_a_whole(facility, model):
    assert facility.put("alice", "alice.half", placeholder("alice.half"))[0] == 200
    facility.s3("alice").put_object(Bucket="models", Key="users/alice.half/1/model.onnx", Body=b"half")
    assert facility.request("alice", "DELETE", "models/alice.half/config")[1]["error"] == "files_left"
    assert facility.request("alice", "DELETE", "models/alice.half") == (200, {"model": "alice.half"})
    assert facility.own().list_objects_v2(Bucket="models", Prefix="users/alice.half")["KeyCount"] == 0


def test_a_placeholder_never_replaces_a_configuration(facility, model):
    assert facility.put("alice", "alice.m", config())[0] == 200
    before = text_of(facility, "alice.m")
    assert facility.put("alice", "alice.m", placeholder("alice.m"))[0] == 200
    assert text_of(facility, "alice.m") == before


@pytest.mark.parametrize(
    ("user", "path", "status", "error"),
    [
        ("alice", "bob.m", 403, "not_your_model"),
        ("bob", "alice.m", 403, "not_your_model"),
        ("bob", "alice.x", 403, "not_your_model"),
        ("alice", "m", 403, "not_your_model"),
        ("alice", "Alice.m", 403, "not_your_model"),
        ("a", "a.b.c", 422, "no_such_version"),  # a's model b.c, never one of a.b's
        ("a.b", "a.b.c", 403, "not_your_model"),
        ("a", "a_2eb.c", 403, "not_your_model"),
        ("a.b", "a_2eb.c", 422, "no_such_version"),
        ("alice", "..", 403, "not_your_model"),
        ("alice", "%2e%2e", 403, "not_your_model"),
        ("alice", "alice.m%2f..%2f..%2fbob.m", 422, "invalid_name"),
        ("alice", "alice.m/../bob.m", 404, "not_found"),
        ("alice", "alice%2Em", 200, None),  # alice.m
        ("alice", "alice%252Em", 403, "not_your_model"),
        ("alice", "alice.", 403, "not_your_model"),
        ("alice", "alice.%2e%2e", 422, "invalid_name"),
        ("alice", "alice.a..b", 422, "invalid_name"),
        ("alice", "alice.m%00", 422, "invalid_name"),
        ("alice", "alice.m%0a", 422, "invalid_name"),
        ("alice", f"alice.{'m' * 101}", 422, "invalid_name"),
        ("alice", f"alice.{quote('µ')}", 422, "invalid_name"),
    ],
)
def test_a_name_of_somebody_else_is_refused(facility, model, user, path, status, error):
    got, reply = facility.put(user, path, config())
    assert (got, reply.get("error")) == (status, error)
    if error and error != "not_found":
        line = facility.log()[-1]
        assert (line["event"], line["user"], line["reason"]) == ("refusal", user, error)
        assert line["model"]
    assert not [key for key in keys_in(facility) if key.endswith("config.pbtxt") and "alice.m/" not in key]


def keys_in(facility):
    return [each["Key"] for each in facility.own().list_objects_v2(Bucket="models").get("Contents", ())]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (config(rest='name: "alice.m"'), "wrong_name"),
        (config(backend="python"), "backend_not_allowed"),
        (config(version=7), "no_such_version"),
        (config(rest='parameters { key: "x" value { string_value: "/etc/passwd" } }'), "parameter_not_allowed"),
        (config() + "#" * 250_000, None),
    ],
)
def test_a_configuration_is_checked_before_it_is_written(facility, model, text, error):
    status, reply = facility.put("bob", "bob.m", text)
    assert (status, reply.get("error")) == (422 if error else 200, error)
    if error:
        line = facility.log()[-1]
        assert (line["event"], line["user"], line["model"], line["reason"]) == ("refusal", "bob", "bob.m", error)
        assert "users/bob.m/config.pbtxt" not in keys_in(facility)
    else:
        assert "#" not in text_of(facility, "bob.m"), "what was checked is written, not what was sent"


def test_only_members_of_a_group_have_python_models(facility, model):
    facility.own().put_object(Bucket="models", Key="users/alice.m/2/model.py", Body=b"")
    assert facility.put("alice", "alice.m", config(2, backend="python"))[0] == 200
    facility.own().put_object(Bucket="models", Key="users/bob.m/2/model.py", Body=b"")
    assert facility.put("bob", "bob.m", config(1))[1]["error"] == "harmful_file"
    facility.s3("alice").put_object(Bucket="models", Key="users/alice.m/3/model.py", Body=b"")
    assert refused(facility.s3("bob").put_object, Key="users/bob.m/3/model.py", Body=b"") == "AccessDenied"


def test_a_huge_body_is_refused_before_it_is_read(facility):
    with pytest.raises(DeploymentRefused, match=r"has 300000 bytes\. Expected at most 262144"):
        HubPublisher(facility.service_of("bob")).write_config("bob.m", "#" * 300_000)
    status, reply = facility.put("bob", "bob.m", "#" * 300_000)
    assert (status, reply["error"]) == (422, "too_large")
    address = urlsplit(facility.tokens.base_url)
    connection = HTTPConnection(address.netloc, timeout=30)
    connection.putrequest("PUT", f"{address.path}store/models/bob.m/config")
    connection.putheader("Content-Length", "10000000")
    connection.endheaders()
    assert connection.getresponse().status == 400
    connection.close()


def test_the_quota_counts_what_is_in_the_store(facility, model):
    assert facility.put("bob", "bob.m", config())[0] == 200
    assert facility.put("bob", "bob.second", placeholder("bob.second"))[0] == 200
    status, reply = facility.put("bob", "bob.third", placeholder("bob.third"))
    assert (status, reply["error"]) == (409, "quota_exceeded")
    assert "you would have 3 models, and this facility allows each user 2" in reply["message"]
    assert facility.put("alice", "alice.m", config())[0] == 200, "bob's models are not alice's"
    facility.s3("bob").put_object(Bucket="models", Key="users/bob.m/2/model.onnx", Body=b"x" * MOST_BYTES)
    assert facility.put("bob", "bob.m", config(2))[1]["error"] == "quota_exceeded"
    assert facility.put("bob", "bob.m", config())[0] == 200, "version 2 can be withdrawn"
    assert not facility.request("bob", "POST", "keys", b"")[1]["writes"]
    full = facility.s3("bob")
    assert refused(full.put_object, Key="users/bob.m/3/model.onnx", Body=b"x") == "AccessDenied"
    full.delete_object(Bucket="models", Key="users/bob.m/2/model.onnx")
    assert facility.put("bob", "bob.m", config())[0] == 200


def refused(call, **options):
    """Return the code with which S3 refuses a request."""
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as raised:
        call(**{"Bucket": "models", **options})
    return raised.value.response["Error"]["Code"]


def test_keys_are_refused_for_anything_but_own_files(facility, model):
    s3 = facility.s3("alice")
    s3.put_object(Bucket="models", Key="users/alice.m/2/model.onnx", Body=b"x")
    assert s3.list_objects_v2(Bucket="models", Prefix="users/alice.")["KeyCount"] == 2
    denied = {
        refused(s3.put_object, Key="users/alice.m/config.pbtxt", Body=b"x"),
        refused(s3.delete_object, Key="users/alice.m/config.pbtxt"),
        refused(s3.create_multipart_upload, Key="users/alice.m/config.pbtxt"),
        refused(s3.put_object, Key="users/alice.m/2/libtriton_onnxruntime.so", Body=b"x"),
        refused(s3.put_object, Key="users/bob.m/1/model.onnx", Body=b"x"),
        refused(s3.get_object, Key="users/bob.m/1/model.onnx"),
        refused(s3.copy_object, Key="users/alice.m/3/x", CopySource="models/users/bob.m/1/model.onnx"),
        refused(s3.copy_object, Key="users/alice.m/config.pbtxt", CopySource="models/users/alice.m/2/model.onnx"),
        refused(s3.delete_objects, Delete={"Objects": [{"Key": "users/bob.m/1/model.onnx"}]}),
        refused(s3.list_objects_v2),
        refused(s3.list_objects_v2, Prefix="users/bob."),
        refused(s3.put_bucket_policy, Policy="{}"),
        refused(s3.delete_bucket),
    }
    assert denied == {"AccessDenied"}
    assert "users/bob.m/1/model.onnx" in keys_in(facility)


def name_host(host, request, **_):
    request.headers["Host"] = host


def test_a_key_that_the_stand_in_would_read_otherwise_is_refused(facility, model):
    before = keys_in(facility)
    s3 = facility.s3("alice")
    own, config_pbtxt = "users/alice.m/1/model.onnx", "users/alice.m/config.pbtxt"
    for key in ("users/alice.m/config%2Epbtxt", f"{config_pbtxt}#x", f"{config_pbtxt}?x", "users/alice.m/1/x%2Epy"):
        assert refused(s3.put_object, Key=key, Body=b"x") == "AccessDenied"
        assert refused(s3.create_multipart_upload, Key=key) == "AccessDenied"
        assert refused(s3.delete_objects, Delete={"Objects": [{"Key": key}]}) == "AccessDenied"
        assert refused(s3.copy_object, Key=key, CopySource=f"models/{own}") == "AccessDenied"
    for key in ("data.json", "config"):
        assert refused(facility.own().get_object, Bucket="moto-api", Key=key) == "AccessDenied"
    for host in ("models.s3.amazonaws.com", "x@127.0.0.1"):  # the bucket is then in the header
        elsewhere = facility.s3("alice")
        elsewhere.meta.events.register("before-sign.s3", partial(name_host, host))
        assert refused(elsewhere.put_object, Key="users/alice.m/2/x", Body=b"x") == "AccessDenied"
    assert keys_in(facility) == before


def test_tritons_key_reads_s3_and_gets_no_keys_from_sts():
    from eaf_facility.servers.s3_program import reading_only

    answered = []
    app = reading_only(lambda *_: ["passed"], "TRITON")
    for key, method, service in product(("TRITON", "OTHER"), ("GET", "HEAD", "PUT", "POST"), ("s3", "sts")):
        credential = (
            f"AWS4-HMAC-SHA256 Credential={key}/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host"
        )
        if app({"REQUEST_METHOD": method, "HTTP_AUTHORIZATION": credential}, lambda *_: None):
            answered.append((key, method, service))
    assert answered[:2] == [("TRITON", "GET", "s3"), ("TRITON", "HEAD", "s3")]
    assert {key for key, *_ in answered[2:]} == {"OTHER"}
    assert len(answered) == 10


def test_keys_end_with_their_life_and_without_their_token(facility, model):
    from moto.core.utils import utcnow
    from moto.sts.models import sts_backends

    status, keys = facility.request("alice", "POST", "keys", b"")
    assert status == 200
    assert 890 <= keys["expires_in"] <= 900
    assert (keys["owner"], keys["url"]) == ("alice", "s3://models/users")
    key = "users/alice.m/1/model.onnx"
    valid = client(facility.endpoint, keys["key"], keys["secret"], keys["token"])
    valid.get_object(Bucket="models", Key=key)
    for secret, token, code in (
        (keys["secret"], None, "InvalidToken"),
        (keys["secret"], "another", "InvalidToken"),
        ("another", keys["token"], "SignatureDoesNotMatch"),
    ):
        assert refused(client(facility.endpoint, keys["key"], secret, token).get_object, Key=key) == code
    (session,) = (
        each for each in sts_backends["123456789012"]["aws"].assumed_roles if each.access_key_id == keys["key"]
    )
    session.expiration = utcnow()
    assert refused(valid.get_object, Key=key) == "ExpiredToken"
    log = facility.tokens.log.read_text(encoding="utf-8")
    assert keys["secret"] not in log
    assert keys["token"] not in log


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "keys"),
        ("PUT", "models/alice.m/config"),
        ("DELETE", "models/alice.m/config"),
        ("DELETE", "models/alice.m"),
    ],
)
def test_only_users_with_access_reach_the_store(facility, model, method, path):
    operator = f"token:{facility.hub.operator_token_file.read_text(encoding='utf-8')}"
    revoked, number = facility.token_of("alice")
    facility.operate(f"users/alice/tokens/{number}", "DELETE")
    no_access = f"token:{facility.token_of('alice', ['read:users!user'])[0]}"
    for user, status in ((operator, 403), (f"token:{revoked}", 401), (no_access, 403), ("token:x", 401)):
        assert facility.request(user, method, path)[0] == status
    assert facility.request("bob", method, f"{path}?user=alice", b'{"user": "alice"}')[0] in (400, 403)
    token = facility.token_of("alice")[0]
    base = f"{facility.tokens.base_url}store/{path}"
    assert ask(f"{base}?token={token}", None, method=method).status == 401, "never in the address"
    assert "users/alice.m/1/model.onnx" in keys_in(facility)


def test_the_user_sees_the_services_own_message(facility, model):
    publisher = HubPublisher(facility.service_of("bob"))
    with pytest.raises(NotAuthorized, match=r"^'alice.m' is not one of your models\. Their names begin with bob\."):
        publisher.write_config("alice.m", config())
    with pytest.raises(DeploymentRefused, match=r"^A model of the Python backend runs its own code on the server"):
        publisher.write_config("bob.m", config(backend="python"))


def test_a_store_that_fails_is_reported(facility):
    facility.own().delete_bucket(Bucket="models")
    try:
        with pytest.raises(ServerUnavailable, match="model store does not answer"):
            HubPublisher(facility.service_of("bob")).write_config("bob.m", config())
    finally:
        facility.own().create_bucket(Bucket="models")
    assert facility.log()[-1]["reason"] == "store_unavailable"


def test_openapi_describes_every_endpoint_of_the_store():

    paths = yaml.safe_load(Path(store_endpoints.__file__).with_name("openapi.yaml").read_text(encoding="utf-8"))[
        "paths"
    ]
    described = {path.replace("{name}", "([^/]+)") for path in paths if path.startswith("/store/")}
    assert described == {f"/{path}" for path, _ in store_endpoints.ENDPOINTS}
    for path, handler in store_endpoints.ENDPOINTS:
        methods = set(paths[f"/{path.replace('([^/]+)', '{name}')}"]) - {"parameters"}
        assert methods == {each for each in ("get", "post", "put", "delete") if each in handler.__dict__}
