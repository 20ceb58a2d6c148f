"""Settings that differ when SuperSONIC's own Envoy is the edge proxy: no certificate, and the chart's ports."""

c = get_config()

c.Envoy.behind_tls = True
c.Envoy.certificate = c.Envoy.key = ""
c.Envoy.admin_port = 9900
c.Envoy.metrics_port = 9901
