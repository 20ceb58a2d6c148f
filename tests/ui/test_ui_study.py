"""The study's report in a browser: plots are drawn without network requests."""

from __future__ import annotations

import pytest

from eaf_facility.study.outcome import PIPELINED, Outcome, Predicted, Scaled, Timing
from eaf_facility.study.report import save

_FIRST_POINT = """() => {
  const plot = Bokeh.documents.flatMap(each => each.roots())[0];
  const { el, frame } = Bokeh.index.find_one(plot);
  const { x, y } = el.getBoundingClientRect();
  return [x + frame.x_scale.compute(1), y + frame.y_scale.compute(250)];
}"""
MEASURED = ((1, 250, 0.0), (4, 1000, 0.003), (16, 1500, 0.1), (64, 1520, 0.57))
SIMULATED = True


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    outcome = Outcome({}, {}, quick=True, where="this machine", accelerator="What was simulated: accelerators.")
    for replicas in (1, 2, 4):
        for client in (PIPELINED, "<b>coffea</b>"):
            outcome.scaled += [
                Scaled(client, replicas, workers, SIMULATED, rate * replicas, rate * replicas / 16, queue, p99=1.0)
                for workers, rate, queue in MEASURED
            ]
    outcome.timings.append(Timing("b", "jets", PIPELINED, ((0, 0.0), (100, 1.0)), 0.0))
    outcome.predicted = Predicted(2, 0.3, 0.01, 1.0, ((4, 62.0, 0.01), (16, 93.0, 0.1)), 44, "More workers fit.")
    return save(outcome, tmp_path_factory.mktemp("study"))[0]


@pytest.mark.parametrize("width", [1300, 600])
def test_plots_fit_the_page_and_need_no_network(browser, report, width):
    errors, requests = [], []
    with browser.new_context(viewport={"width": width, "height": 900}, offline=True) as context:
        tab = context.new_page()
        tab.on("console", lambda message: errors.append(message.text) if message.type != "info" else None)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(report.as_uri())
        tab.wait_for_function("window.Bokeh?.documents.length && Bokeh.documents.every(each => each.is_idle)")
        assert requests == [report.as_uri()]
        assert not [each for each in errors if "[bokeh" not in each]
        assert tab.locator(".plot canvas").count() >= tab.locator(".plot").count() == 7
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        # one tooltip lists all points under the pointer
        tab.locator(".plot").first.scroll_into_view_if_needed()
        tab.mouse.move(*tab.evaluate(_FIRST_POINT))
        tooltip = tab.locator(".bk-Tooltip")
        tooltip.get_by_text("eaf-inference, 1 Triton: 1 worker, 250 jets/s, queue 0 ms, p99 1.00 s").wait_for()
        tooltip.get_by_text("<b>coffea</b>, 1 Triton: 1 worker").wait_for()
        assert tooltip.count() == 1
