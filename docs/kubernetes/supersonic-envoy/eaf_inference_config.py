"""What differs where SuperSONIC's own Envoy is the door: it has no certificate, and its ports are the chart's."""

c = get_config()

c.Envoy.behind_tls = True
c.Envoy.certificate = c.Envoy.key = ""
c.Envoy.admin_port = 9900
c.Envoy.metrics_port = 9901
