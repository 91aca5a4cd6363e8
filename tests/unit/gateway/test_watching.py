"""Dashboard and alerts speak of metrics that exist, and promtool agrees where it is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gateway.metrics import GatewayMetrics

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "brokerd.json"
PROMTOOL = shutil.which("promtool")

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not on the PATH")


def promtool(*arguments: str, folder: Path = PROMETHEUS, given: bytes = b"") -> str:
    """Run promtool; its output, after an exit with 0."""
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *arguments],
        cwd=folder,
        input=given,
        capture_output=True,
        timeout=60,
        check=False,
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


def real_names() -> set[str]:
    """Every name a sample can bear."""
    names = set()
    for family in GatewayMetrics(CollectorRegistry()).families():
        ends = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
        names |= {family.name + end for end in ends[family.kind]}
    return names


def panels() -> list[dict[str, Any]]:
    """The dashboard's panels that show something."""
    return [each for each in json.loads(DASHBOARD.read_text())["panels"] if each["type"] != "row"]


def queries() -> list[str]:
    """Every query of the dashboard."""
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def test_every_query_is_about_a_metric_that_exists() -> None:
    """A renamed family does not leave an empty panel or a silent alert behind."""
    asked = "\n".join([*queries(), (PROMETHEUS / "alerts.yml").read_text()])
    expressions = re.sub(r"(?m)^ *(summary|action):.*$", "", asked)
    named = set(re.findall(r"\bbrokerd_\w+", expressions))

    assert len(named) > 15
    assert named <= real_names(), named - real_names()


def test_every_panel_has_its_own_place_and_explains_itself() -> None:
    """Ids are unique, panels do not overlap, and each says what it shows and in which unit."""
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_every_alert_says_how_grave_it_is_and_what_to_do() -> None:
    """Eight alerts; each has a severity, a summary, an action and a test of its own."""
    rules = (PROMETHEUS / "alerts.yml").read_text()
    alerts = re.findall(r"- alert: (\w+)", rules)
    tested = set(re.findall(r"alertname: (\w+)", (PROMETHEUS / "alerts.test.yml").read_text()))

    assert len(alerts) == 8
    assert tested == set(alerts)
    for word in ("severity: ", "summary: ", "action: ", "for: "):
        assert rules.count(word) == 8


@needs_promtool
def test_the_rules_fire_as_their_tests_say() -> None:
    """promtool checks the rules and plays their tests."""
    promtool("check", "rules", "alerts.yml")
    promtool("test", "rules", "alerts.test.yml")


@needs_promtool
def test_every_query_of_the_dashboard_parses(tmp_path: Path) -> None:
    """As recording rules, with Grafana's variables filled in, all are valid."""
    lines = ["groups:", "  - name: dashboard", "    rules:"]
    for number, query in enumerate(queries()):
        filled = query.replace("$__rate_interval", "1m").replace("$psp", ".*")
        lines += [f"      - record: panel:{number}", f"        expr: {json.dumps(filled)}"]
    (tmp_path / "rules.yml").write_text("\n".join(lines))

    promtool("check", "rules", "rules.yml", folder=tmp_path)


@needs_promtool
async def test_the_exposition_is_what_prometheus_expects() -> None:
    """promtool has no remark on names, types and help."""
    metrics = GatewayMetrics(CollectorRegistry())
    metrics.attempt_finished("acme", "approved", 0.1)
    metrics.batch(3, 1, 0.01)

    promtool("check", "metrics", given=await metrics.render())
