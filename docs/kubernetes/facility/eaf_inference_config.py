"""The facility, written once: the token service tells users of it, and Envoy's configuration is made of it."""

c = get_config()

# what users' notebooks and workers are told
c.Facility.urls = ["grpcs://triton.example.org:443"]
c.Facility.prometheus_url = "http://prometheus-operated.monitoring:9090"
c.Facility.prometheus_matchers = ['namespace="analysis"']

# on what the token service and Envoy agree
c.TokenPolicy.issuer = "https://hub.example.org"
c.TokenPolicy.jwks_url = "http://triton-token:8010/services/triton-token/.well-known/jwks.json"
c.TokenPolicy.tiers = {"production": "batch"}

c.TokenIssuer.key_directory = "/var/lib/eaf-inference/keys"  # made by the service, in the volume mounted above it
c.TokenIssuer.contact = "triton-help@example.org"

c.Envoy.upstreams = ["grpc://supersonic-triton:8001"]  # a headless Service: its name has the address of every Triton
c.Envoy.certificate = "/etc/envoy/tls/tls.crt"
c.Envoy.key = "/etc/envoy/tls/tls.key"
c.Envoy.share = 100  # each replica of Envoy counts by itself
c.Envoy.memory = 2 * 1024**3  # below the container's limit in door.yaml
c.Envoy.metrics_address = "0.0.0.0"
c.Envoy.metrics_port = 9902
