# The token service's image; the init container that makes Envoy's configuration uses it too.
#   SKIP_JUPYTER_BUILDER=1 python -m pip wheel --no-deps --wheel-dir docs/kubernetes/images .
#   docker build -f docs/kubernetes/images/service.Dockerfile docs/kubernetes/images
# [store] instead of [hub] has s3fs, for a model store in S3.
FROM python:3.12-slim
COPY eaf_inference-*.whl /tmp/
RUN python -m pip install --no-cache-dir "$(echo /tmp/eaf_inference-*.whl)[hub]" pyyaml
USER 1000:1000
