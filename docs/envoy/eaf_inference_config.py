"""Example: the settings from which envoy.yaml and tls-secret.yaml beside this file are made.

JUPYTER_CONFIG_DIR=docs/envoy eaf-inference envoy --output docs/envoy/envoy.yaml
"""

c = get_config()

c.TokenPolicy.issuer = "https://hub.example.org"
c.TokenPolicy.jwks_url = "http://hub.example.org:8081/services/triton-token/.well-known/jwks.json"

c.Envoy.upstreams = ["grpc://triton-0.example.org:8001", "grpc://triton-1.example.org:8001"]
c.Envoy.certificate = "/etc/envoy/tls/tls.crt"
c.Envoy.key = "/etc/envoy/tls/tls.key"
c.Envoy.models = ["particlenet"]
c.Envoy.share = 50
