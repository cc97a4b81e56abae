"""Claims about alerts and dashboard of clusters: the rules' shape, and what PromQL reads."""

import copy
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.infra.kustomize import FOLDER, of_kind, render

promql_parser = pytest.importorskip("promql_parser", reason="the environment is older than it")

# Each metric that an expression may read, by who makes it. Of kube-state-metrics' docs/metrics, of
# the DCGM exporter's etc/default-counters.csv, of the kubelet, and of Prometheus itself.
SOURCES = {
    "kube-state-metrics": {
        "kube_cronjob_created",
        "kube_cronjob_spec_suspend",
        "kube_cronjob_status_last_successful_time",
        "kube_job_created",
        "kube_job_failed",
        "kube_job_status_start_time",
        "kube_pod_completion_time",
        "kube_pod_container_resource_limits",
        "kube_pod_container_resource_requests",
        "kube_pod_container_status_terminated_reason",
        "kube_pod_container_status_waiting_reason",
        "kube_pod_owner",
        "kube_pod_status_phase",
    },
    "dcgm-exporter": {
        "DCGM_FI_DEV_FB_FREE",
        "DCGM_FI_DEV_FB_USED",
        "DCGM_FI_DEV_GPU_UTIL",
        "DCGM_FI_DEV_ROW_REMAP_FAILURE",
        "DCGM_FI_DEV_XID_ERRORS",
    },
    "kubelet": {"container_cpu_usage_seconds_total", "container_memory_working_set_bytes"},
    "prometheus": {"ALERTS"},
}
NAMESPACES = {"namespace", "exported_namespace"}
ANYWHERE = {"DCGM_FI_DEV_ROW_REMAP_FAILURE"}  # of a node's GPU, whoever has it
CASES = FOLDER / "components" / "alerts" / "cases.yaml"
WORDS = {"alert", "expr", "for", "labels", "annotations"}  # of a rule, by the operator's CRD


def rules() -> list[dict[str, Any]]:
    (manifest,) = of_kind(render("alerts"), "PrometheusRule").values()
    return [rule for group in manifest["spec"]["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "grafana" / "recap.json").read_text("utf-8"))
    return found


def expressions(language: str = "prometheus") -> list[str]:
    """The dashboard's expressions in this language, with values for Grafana's variables."""
    return [
        target["expr"].replace("$namespace", "recap").replace("$__range", "1d")
        for panel in dashboard()["panels"]
        for target in panel["targets"]
        if target["datasource"]["type"] == language
    ]


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """Return each metric that the expression reads, and the labels that it selects by."""
    found = []

    def visit(node: Any) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.append((node.name, {each.name for each in node.matchers.matchers}))
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def test_the_rules_are_those_of_the_operators_crd():
    (manifest,) = of_kind(render("alerts"), "PrometheusRule").values()
    assert manifest["apiVersion"] == "monitoring.coreos.com/v1"
    assert manifest["metadata"]["namespace"] == "recap"
    assert all(set(group) == {"name", "rules"} for group in manifest["spec"]["groups"])
    for rule in rules():
        assert set(rule) <= WORDS
        assert re.fullmatch(r"Recap[A-Za-z]+", rule["alert"])
        assert re.fullmatch(r"\d+[mh]", rule.get("for", "0m"))
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("where", ["rules", "dashboard"])
def test_expressions_read_metrics_of_recaps_namespace_that_somebody_makes(where):
    found = [rule["expr"] for rule in rules()] if where == "rules" else expressions()
    known = set().union(*SOURCES.values())
    for expression in found:
        read = selectors(expression)
        assert read, expression
        assert {name for name, _ in read} <= known, expression
        limited = [name for name, labels in read if labels & NAMESPACES]
        assert limited or {name for name, _ in read} <= ANYWHERE | {"ALERTS"}, expression


def test_each_known_metric_is_read_somewhere():
    found = [rule["expr"] for rule in rules()] + expressions()
    read = {name for expression in found for name, _ in selectors(expression)}
    assert read == set().union(*SOURCES.values())


def test_messages_name_labels_that_their_expression_has():
    kept = {
        "kube_job_created": {"job_name"},
        "kube_job_failed": {"job_name"},
        "kube_pod_owner": {"job_name"},
        "kube_pod_status_phase": {"pod"},
        "kube_pod_container_status_waiting_reason": {"pod"},
        "kube_pod_container_status_terminated_reason": {"pod", "reason"},
    }
    for rule in rules():
        text = json.dumps(rule["annotations"])
        used = set(re.findall(r"\$labels\.(\w+)", text))
        first = selectors(rule["expr"])[0][0]
        known = {"gpu", "Hostname"} if first.startswith("DCGM_") else kept.get(first, set())
        assert used <= known, rule["alert"]
        assert text.count("{{") == text.count("}}")


def promtool(folder: Path, cases: str) -> subprocess.CompletedProcess[str]:
    """Let Prometheus' own tool run the cases over the rules, with their summaries alone."""
    (manifest,) = of_kind(render("alerts"), "PrometheusRule").values()
    spec = copy.deepcopy(manifest["spec"])
    for group in spec["groups"]:
        for rule in group["rules"]:
            del rule["annotations"]["description"]
    (folder / "rules.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    (folder / "cases.yaml").write_text(cases, encoding="utf-8")
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("no promtool: `make check-infra` fetches one where Debian's packages are")
    command = [tool, "test", "rules", "cases.yaml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.infra
def test_alerts_fire_when_their_cases_say_so_and_no_earlier(tmp_path):
    ended = promtool(tmp_path, CASES.read_text(encoding="utf-8"))
    assert ended.returncode == 0, ended.stderr + ended.stdout


def test_each_alert_has_a_case_that_fires_and_one_that_does_not():
    fires, silent = set(), set()
    for case in yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]:
        for each in case["alert_rule_test"]:
            (fires if each["exp_alerts"] else silent).add(each["alertname"])
    # These have no time: beside what fires, their cases have what must not.
    at_once = {"RecapJobFailed", "RecapGpuMemoryFails"}
    assert fires == {rule["alert"] for rule in rules()} == silent | at_once


@pytest.mark.infra
def test_a_gpu_is_held_from_the_choice_of_a_node_to_the_end_of_the_pod(tmp_path):
    requests = "kube_pod_container_resource_requests"
    series = []
    for pod, phase, node in (
        ("works", "Running", "n"),
        ("has-no-image", "Pending", "n"),
        ("waits", "Pending", ""),
        ("ended", "Succeeded", "n"),
    ):
        labels = f'namespace="recap", pod="{pod}"'
        gpu = f'{requests}{{{labels}, resource="nvidia_com_gpu", node="{node}"}}'
        series.append({"series": gpu, "values": "1x60"})
        for each in ("Pending", "Running", "Succeeded"):
            value = f"{int(each == phase)}x60"
            named = f'kube_pod_status_phase{{{labels}, phase="{each}"}}'
            series.append({"series": named, "values": value})
    held, hours = (each for each in expressions() if requests in each)
    asked = [
        {"expr": expr, "eval_time": "59m", "exp_samples": [{"labels": "{}", "value": 2}]}
        for expr in (held, hours)
    ]
    cases = {"interval": "1m", "input_series": series, "promql_expr_test": asked}
    ended = promtool(tmp_path, yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": [cases]}))
    assert ended.returncode == 0, ended.stderr + ended.stdout


def test_a_night_is_missing_later_than_a_late_night_ends():
    (rule,) = (each for each in rules() if each["alert"] == "RecapNightMissing")
    (hours,) = set(re.findall(r"> (\d+) \* 3600", rule["expr"]))
    (panel,) = (each for each in dashboard()["panels"] if "good night" in each["title"])
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [step["value"] for step in steps] == [None, int(hours)], "red as the alert"
    assert 24 < int(hours) < 48


def test_panels_lie_beside_each_other_and_have_a_source():
    taken: dict[tuple[int, int], str] = {}
    names = {each["name"] for each in dashboard()["templating"]["list"]}
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
        for source in [panel["datasource"], *(each["datasource"] for each in panel["targets"])]:
            assert source["uid"].strip("${}") in names
    assert max(x for x, _ in taken) == 23
    assert len(taken) == 24 * (1 + max(y for _, y in taken)), "without a gap"
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(ids) == len(set(ids))


def test_logs_are_found_as_recap_writes_them(capsys):
    from job.telemetry import configure_logging, log_metrics, warn

    configure_logging(person=False)
    log_metrics("summaries", {"records": (3, "Count")}, run="nightly-2026-01-31")
    warn("rejected", reason="too_long")
    night, warning = capsys.readouterr().err.splitlines()
    nights, errors = expressions("loki")
    (text,) = re.findall(r'{namespace="recap"} \|= `(.*)`', nights)
    assert (text in night, text in warning) == (True, False)
    (pattern,) = re.findall(r'{namespace="recap"} \|~ `(.*)`', errors)
    lines = [warning, night, "error: nightly.yaml does not exist", "config error: run: missing"]
    assert [bool(re.search(pattern, line)) for line in lines] == [True, False, True, True]


def test_the_alert_of_a_failed_job_says_that_a_person_decides_after_76():
    (rule,) = [rule for rule in rules() if rule["alert"] == "RecapJobFailed"]
    text = " ".join(rule["annotations"]["description"].split())
    assert "After 76 nothing is broken: the adapter is there" in text
    assert "a person decides" in text
