"""The facility's settings, in one file: for users through the token service, and for Envoy's configuration."""

c = get_config()

# sent to users' notebooks and workers
c.Facility.urls = ["grpcs://triton.example.org:443"]
c.Facility.prometheus_url = "http://prometheus-operated.monitoring:9090"
c.Facility.prometheus_matchers = ['namespace="analysis"']

# shared by the token service and Envoy
c.TokenPolicy.issuer = "https://hub.example.org"
c.TokenPolicy.jwks_url = "http://triton-token:8010/services/triton-token/.well-known/jwks.json"
c.TokenPolicy.tiers = {"production": "batch"}

c.TokenIssuer.key_directory = "/var/lib/eaf-inference/keys"  # created by the service in the volume mounted above it
c.TokenIssuer.contact = "triton-help@example.org"

c.Envoy.upstreams = ["grpc://supersonic-triton:8001"]  # a headless Service, whose name resolves to every Triton
c.Envoy.certificate = "/etc/envoy/tls/tls.crt"
c.Envoy.key = "/etc/envoy/tls/tls.key"
c.Envoy.tls_secret = "/etc/envoy/made/tls-secret.yaml"  # beside the configuration that the init container writes
c.Envoy.share = 100  # for each replica of Envoy
c.Envoy.memory = 2 * 1024**3  # below the container's limit in edge-proxy.yaml
c.Envoy.metrics_address = "0.0.0.0"
c.Envoy.metrics_port = 9902
