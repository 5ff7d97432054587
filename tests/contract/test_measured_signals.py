"""Signals that measure: Prometheus, alarms of clouds, the lab's users. Good, bad, or unknown; never an exception (I15)."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from orchestrator.clouds.aws.alarm import AwsAlarm
from orchestrator.clouds.aws.session import AwsSession, Keys
from orchestrator.clouds.azure.alarm import AzureAlarm
from orchestrator.clouds.azure.arm import Azure
from orchestrator.core.errors import Bug, Rejected
from orchestrator.core.signal import AzureAlert, CloudWatchAlarm, LabTraffic, PrometheusQuery, parse_signal
from orchestrator.lab.aws import EmulatedAws
from orchestrator.lab.credential import LabCredential
from orchestrator.lab.traffic.record import RawLog, Row
from orchestrator.ports import Reading, Signal
from orchestrator.signals import open_signal

RULE = "/subscriptions/sub-1/resourceGroups/gates/providers/Microsoft.Insights/metricAlerts/users-fail"


def read(signal: Signal) -> Reading:
    return asyncio.run(signal.read())


@contextmanager
def site(answers: dict[str, Any], wait_s: float = 0.0, otherwise: Any = 404) -> Iterator[str]:
    """Answers GET on 127.0.0.1: path -> a document (JSON), bytes as they are, or a number for a bare status."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(wait_s)
            answer = answers.get(urlsplit(self.path).path, otherwise)
            if callable(answer):
                answer = answer(parse_qs(urlsplit(self.path).query))
            body = (
                answer
                if isinstance(answer, bytes)
                else b"{}"
                if isinstance(answer, int)
                else json.dumps(answer).encode()
            )
            self.send_response(answer if isinstance(answer, int) else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        return int(unused.getsockname()[1])


# Prometheus


def vector(*values: str) -> dict[str, Any]:
    series = [{"metric": {"zone": str(i)}, "value": [1.0, value]} for i, value in enumerate(values)]
    return {"status": "success", "data": {"resultType": "vector", "result": series}}


@pytest.mark.parametrize(
    ("answer", "state", "told"),
    [
        (vector("0.001", "0"), "good", "0.001 is within -inf to 0.01 (2 values)"),
        (vector("0.001", "0.2"), "bad", "0.2 is not within -inf to 0.01 (1 of 2 values)"),
        ({"status": "success", "data": {"resultType": "scalar", "result": [1.0, "5"]}}, "bad", "5 is not within"),
        (vector(), "unknown", "the query has no value"),
        (vector("NaN"), "unknown", "the query has no value"),
        ({"status": "error", "error": "parse error"}, "unknown", "parse error"),
        (b"<html>", "unknown", "something else than a result"),
        ([1, 2], "unknown", "something else than a result"),
        (vector("lots"), "unknown", "something else than a result"),
    ],
)
def test_a_prometheus_query_is_judged_by_its_bounds(answer: Any, state: str, told: str) -> None:
    with site({"/api/v1/query": answer}) as url:
        said = read(open_signal(PrometheusQuery("users", url, "rate(errors[1m])", 0.01)))
    assert (state, True) == (said.state, told in said.evidence), said


def test_who_does_not_answer_in_time_says_nothing_and_no_secret_is_told() -> None:
    with site({}, wait_s=0.5) as url:
        slow = read(open_signal(PrometheusQuery("users", url.replace("//", "//me:hush@"), "up", timeout_s=0.1)))
    refused = read(open_signal(PrometheusQuery("users", f"http://127.0.0.1:{closed_port()}", "up")))
    assert ["unknown", "unknown"] == [slow.state, refused.state]
    assert "hush" not in slow.evidence


# Alarms of clouds


@pytest.fixture(scope="module")
def aws() -> Iterator[EmulatedAws]:
    with EmulatedAws(["us-east-1"]) as aws:
        yield aws


@pytest.mark.parametrize(
    ("state", "expected"), [("OK", "good"), ("ALARM", "bad"), ("INSUFFICIENT_DATA", "unknown"), (None, "unknown")]
)
def test_an_alarm_of_cloudwatch_is_what_its_state_says(aws: EmulatedAws, state: str | None, expected: str) -> None:
    session = AwsSession(Keys("lab", "lab"))
    name = f"users-{state}"
    if state is not None:
        client = session.make_client("cloudwatch", "us-east-1", aws.endpoint, 1)
        client.put_metric_alarm(
            AlarmName=name, MetricName="5xx", Namespace="gates", ComparisonOperator="GreaterThanThreshold",
            EvaluationPeriods=1, Threshold=1.0, Period=60, Statistic="Sum",
        )  # fmt: skip
        client.set_alarm_state(AlarmName=name, StateValue=state, StateReason="told so")
    said = read(AwsAlarm(session, CloudWatchAlarm("users", "us-east-1", name, aws.endpoint)))
    told = f"is {state}: told so" if state else "does not exist"
    assert Reading(expected, f"CloudWatch alarm {name} in us-east-1 {told}") == said  # type: ignore[arg-type]
    session.close()


def test_an_aws_that_does_not_answer_says_nothing() -> None:
    session = AwsSession(Keys("lab", "lab"))
    spec = CloudWatchAlarm("users", "us-east-1", "users", f"http://127.0.0.1:{closed_port()}")
    assert "unknown" == read(AwsAlarm(session, spec)).state
    session.close()


NONSENSE = [b"<html>", b"[1, 2]", b"null", b"{}", b"\xff\xfe", b'{"value": 3}']


@pytest.mark.parametrize("body", NONSENSE)
def test_whoever_answers_nonsense_says_nothing(body: bytes) -> None:
    session, azure = AwsSession(Keys("lab", "lab")), Azure(LabCredential())
    with site({}, otherwise=body) as url:
        asked = [
            AwsAlarm(session, CloudWatchAlarm("users", "us-east-1", "users", url)),
            AzureAlarm(azure, AzureAlert("users", RULE, url)),
            open_signal(PrometheusQuery("users", url, "up", 1.0)),
        ]
        said = [read(signal) for signal in asked]
    session.close()
    azure.close()
    assert ["unknown"] * 3 == [reading.state for reading in said]
    assert [] == [reading for reading in said if "does not exist" in reading.evidence]


def test_an_alarm_of_a_cloud_that_does_not_come_in_time_says_nothing() -> None:
    session, azure = AwsSession(Keys("lab", "lab")), Azure(LabCredential())
    with site({}, wait_s=0.4) as url:
        said = [
            read(AwsAlarm(session, CloudWatchAlarm("users", "us-east-1", "users", url, timeout_s=0.2))),
            read(AzureAlarm(azure, AzureAlert("users", RULE, url, timeout_s=0.2))),
        ]
        assert [("unknown", True)] * 2 == [(r.state, r.evidence.endswith("no answer within 0.2 s")) for r in said]
        session.close()
        azure.close()


def alert(condition: str = "Fired", state: str = "New") -> dict[str, Any]:
    told = {
        "monitorCondition": condition,
        "alertState": state,
        "alertRule": RULE,
        "startDateTime": "2030-01-01T00:00:00Z",
    }
    return {"properties": {"essentials": told}}


ENABLED = {"properties": {"enabled": True}}


@pytest.mark.parametrize(
    ("rule", "alerts", "state", "told"),
    [
        (ENABLED, [], "good", "alert rule users-fail has not fired"),
        (ENABLED, [alert()], "bad", "alert rule users-fail has fired since 2030-01-01T00:00:00Z"),
        (ENABLED, [alert("Resolved"), alert(state="Closed")], "good", "alert rule users-fail has not fired"),
        ({"properties": {"enabled": False}}, [], "unknown", "alert rule users-fail is disabled"),
        (404, [], "unknown", "users-fail"),
        (ENABLED, None, "unknown", "something else than alerts"),
    ],
)
def test_an_alert_rule_of_azure_is_bad_once_it_has_fired(rule: Any, alerts: Any, state: str, told: str) -> None:
    asked: list[dict[str, list[str]]] = []

    def listed(query: dict[str, list[str]]) -> dict[str, Any]:
        asked.append(query)
        return {"value": alerts}

    with site({RULE: rule, "/subscriptions/sub-1/providers/Microsoft.AlertsManagement/alerts": listed}) as url:
        azure = Azure(LabCredential())
        said = read(AzureAlarm(azure, AzureAlert("users", RULE, url)))
        azure.close()
    assert (state, True) == (said.state, told in said.evidence), said
    for query in asked:
        assert (["Fired"], [RULE], ["30d"]) == (query["monitorCondition"], query["alertRule"], query["timeRange"])


def test_an_alert_on_a_later_page_has_fired_too() -> None:
    alerts = "/subscriptions/sub-1/providers/Microsoft.AlertsManagement/alerts"
    pages: dict[str, Any] = {RULE: ENABLED, "/second": {"value": [alert()]}}
    with site(pages) as url:
        pages[alerts] = {"value": [], "nextLink": f"{url}/second"}
        azure = Azure(LabCredential())
        said = read(AzureAlarm(azure, AzureAlert("users", RULE, url)))
        azure.close()
    assert Reading("bad", "alert rule users-fail has fired since 2030-01-01T00:00:00Z") == said


def test_an_azure_that_does_not_answer_says_nothing() -> None:
    azure = Azure(LabCredential())
    said = read(AzureAlarm(azure, AzureAlert("users", RULE, f"http://127.0.0.1:{closed_port()}", timeout_s=10.0)))
    azure.close()
    assert "unknown" == said.state


def test_the_alarm_of_a_cloud_is_opened_by_its_adapter() -> None:
    with pytest.raises(Bug):
        open_signal(CloudWatchAlarm("users", "us-east-1", "users"))


# The lab's users


def sent(folder: Path, *outcomes: str, age_s: float = 0.5) -> None:
    log = RawLog(folder / "requests-1.csv")
    for outcome in outcomes:
        log.write(Row(time.time() - age_s, 1, "aws/us-east-1a", "i", "v1", outcome, 5.0, "fresh", "short", "127.0.0.1"))
    log.flush()
    log.close()


@pytest.mark.parametrize(
    ("outcomes", "most", "age_s", "state"),
    [
        (["ok", "ok"], 0.0, 0.5, "good"),
        (["ok", "timeout"], 0.0, 0.5, "bad"),
        (["ok", "reset", "ok"], 0.4, 0.5, "good"),
        (["timeout"], 0.0, 60.0, "unknown"),
        ([], 0.0, 0.5, "unknown"),
    ],
)
def test_the_labs_users_are_well_while_few_of_their_last_requests_failed(
    tmp_path: Path, outcomes: list[str], most: float, age_s: float, state: str
) -> None:
    sent(tmp_path, *outcomes, age_s=age_s)
    assert state == read(open_signal(LabTraffic("users", str(tmp_path), most))).state


def test_without_a_log_or_with_another_file_nothing_is_known(tmp_path: Path) -> None:
    spec = LabTraffic("users", str(tmp_path))
    assert "unknown" == read(open_signal(spec)).state
    (tmp_path / "requests-1.csv").write_text("not,a,log\n1,2,3\n")
    assert "unknown" == read(open_signal(spec)).state


# What failout.yaml says


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"kind": "prometheus", "url": "http://p:9090", "query": "up", "min": 1},
            PrometheusQuery("s", "http://p:9090", "up", inf, 1.0),
        ),
        ({"kind": "cloudwatch-alarm", "region": "us-east-1", "alarm": "a"}, CloudWatchAlarm("s", "us-east-1", "a")),
        ({"kind": "azure-alert", "rule": RULE}, AzureAlert("s", RULE)),
        ({"kind": "lab-traffic", "folder": "x", "failed_share_max": 0.1}, LabTraffic("s", "x", 0.1)),
    ],
)
def test_a_signal_is_read_as_written(given: dict[str, Any], expected: object) -> None:
    assert expected == parse_signal("s", given)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"kind": "prometheus", "url": "http://p", "query": "up"}, "give 'max', 'min' or both"),
        ({"kind": "prometheus", "url": "p:9090", "query": "up", "max": 1}, "'url' must be an http or https address"),
        (
            {"kind": "prometheus", "url": "http://me:a/b@p", "query": "up", "max": 1},
            "'url' is no address: its host or port is wrong",
        ),
        ({"kind": "prometheus", "url": "http://p", "query": "up", "max": True}, "'max' must be a number, not True"),
        ({"kind": "cloudwatch-alarm", "region": "us-east-1"}, "'alarm' must be a text, not None"),
        ({"kind": "azure-alert", "rule": "users-fail"}, "'rule' must be the id of a metric alert"),
        (
            {"kind": "lab-traffic", "folder": "x", "failed_share_max": 2},
            "'failed_share_max' must be a number from 0 to 1",
        ),
    ],
)
def test_a_signal_that_is_wrong_says_why(given: dict[str, Any], why: str) -> None:
    with pytest.raises(Rejected, match=why):
        parse_signal("s", given)
