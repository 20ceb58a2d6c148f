# The Hub's image: Zero to JupyterHub's, plus this package without dependencies, because configure() needs none.
#   SKIP_JUPYTER_BUILDER=1 python -m pip wheel --no-deps --wheel-dir docs/kubernetes/images .
#   docker build -f docs/kubernetes/images/hub.Dockerfile docs/kubernetes/images
FROM quay.io/jupyterhub/k8s-hub:4.4.0
USER root
COPY eaf_inference-*.whl /tmp/
RUN python3 -m pip install --no-cache-dir --no-deps /tmp/eaf_inference-*.whl
USER jovyan
