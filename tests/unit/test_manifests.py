"""The files for Kubernetes, systemd, Prometheus, Grafana and AWS: valid by their schemas, and true to the code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from pgbackup.config.settings import SECRETS, Settings
from pgbackup.storage import s3_errors
from pgbackup.web.metrics import Metrics
from tests.conftest import in_ci
from tests.made_status import FULL

DOCKER = Path(__file__).parents[2] / "docker"
KUBERNETES = DOCKER / "kubernetes"
OLDEST, NEWEST = "1.29", "1.33"
OTHERS = {"Kustomization", "ServiceMonitor", "PrometheusRule"}


def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text("utf-8")))


MANIFESTS = [
    pytest.param(document, id=f"{path.relative_to(KUBERNETES)}-{document['kind']}-{document['metadata']['name']}")
    for path in sorted(KUBERNETES.rglob("*.yaml"))
    for document in documents(path)
    if document["kind"] not in OTHERS
]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("manifest", MANIFESTS)
def test_manifests_are_what_kubernetes_takes(manifest: Any, version: str) -> None:
    kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("folder", [KUBERNETES, KUBERNETES / "restore"], ids=["main", "restore"])
def test_kustomize_names_every_file(folder: Path) -> None:
    (kustomization,) = documents(folder / "kustomization.yaml")
    there = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(kustomization["resources"]) == there
    named = {image["name"] for image in kustomization["images"]}
    used = {c["image"] for path in folder.glob("*.yaml") for d in documents(path) for c, _ in containers(d)}
    assert used == named


def containers(document: Any) -> Iterator[tuple[Any, Any]]:
    """Each container with the spec of its pod."""
    pod = document.get("spec", {}).get("template", {}).get("spec", {})
    yield from ((container, pod) for container in [*pod.get("initContainers", []), *pod.get("containers", [])])


CONTAINERS = [
    pytest.param(container, pod, id=container["name"])
    for manifest in MANIFESTS
    for container, pod in containers(manifest.values[0])
]


@pytest.mark.parametrize(("container", "pod"), CONTAINERS)
def test_texts_stay_texts_when_kustomize_takes_their_quotation_marks(container: Any, pod: Any) -> None:
    """It prints them bare where YAML 1.2 has no other reading; 1.1 takes a bare moment for a timestamp."""
    texts = [*container.get("args", []), *container.get("command", [])]
    texts += [entry["value"] for entry in container["env"] if "value" in entry]
    assert [text for text in texts if yaml.safe_load(text) != text] == []


@pytest.mark.parametrize(("container", "pod"), CONTAINERS)
def test_every_container_is_restricted_and_bounded(container: Any, pod: Any) -> None:
    context = container["securityContext"]
    assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["resources"]["requests"]
    assert container["resources"]["limits"]["memory"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    given = {volume["name"] for volume in pod["volumes"]} | {"data"}
    assert mounted <= given


def test_pgbackup_is_a_native_sidecar_with_settings_that_exist() -> None:
    (statefulset,) = documents(KUBERNETES / "statefulset.yaml")
    pod = statefulset["spec"]["template"]["spec"]
    (sidecar,) = pod["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    assert "livenessProbe" in sidecar
    # It neither takes PostgreSQL out of its Service nor keeps it from starting, as a startupProbe of a sidecar does.
    assert not {"readinessProbe", "startupProbe"} & set(sidecar)
    names = {entry["name"] for entry in sidecar["env"]} | set(documents(KUBERNETES / "configmap.yaml")[0]["data"])
    ours = {name.removeprefix("PGBACKUP_").lower() for name in names if name.startswith("PGBACKUP_")}
    assert ours <= set(Settings.model_fields)


def test_the_role_is_the_one_that_init_makes() -> None:
    from pgbackup.postgres.role import UNLIMITED, plan_role, plan_slot_limit

    text = documents(KUBERNETES / "configmap.yaml")[1]["data"]["pgbackup.sql"]
    wanted = [change.statement for change in plan_role("pgbackup") + plan_slot_limit(UNLIMITED)]
    # The stock image starts the server anew after its scripts.
    assert [line.rstrip(";").replace('"', "") for line in text.splitlines()] == [
        statement.replace('"', "") for statement in wanted if "reload" not in statement
    ]


def test_names_can_be_looked_up_wherever_the_cluster_does_it() -> None:
    """A cache on the node is no pod, so no selector of pods matches it."""
    for policy in documents(KUBERNETES / "networkpolicy.yaml"):
        asked = [rule for rule in policy["spec"]["egress"] if {port["port"] for port in rule["ports"]} == {53}]
        assert [set(rule) for rule in asked] == [{"ports"}]


# -- Prometheus and Grafana ---------------------------------------------------------------------------------------


def exported() -> set[str]:
    """Every name that a scrape can show: samples, and the families they belong to."""
    text = Metrics(lambda: FULL, lambda: datetime.fromtimestamp(FULL.as_of.timestamp(), UTC), version="1").render()
    names = set()
    for family in text_string_to_metric_families(text.decode()):
        names |= {family.name, *(sample.name for sample in family.samples)}
    return names


def named_metrics(text: str) -> set[str]:
    return set(re.findall(r"\b(?:pgbackup|process)_[a-z0-9_]+", text))


def rules() -> list[Any]:
    (document,) = documents(DOCKER / "monitoring" / "alerts.yml")
    return [rule for group in document["groups"] for rule in group["rules"]]


def dashboard() -> Any:
    return json.loads((DOCKER / "monitoring" / "dashboard.json").read_text("utf-8"))


def test_every_metric_of_an_alert_is_exported() -> None:
    for rule in rules():
        names = named_metrics(rule["expr"])
        assert names, rule
        assert names <= exported(), rule["alert"]


def test_every_alert_says_what_it_is_and_how_bad() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description"}
        assert re.fullmatch(r"\d+[smhd]", rule["for"])


def test_every_metric_of_the_dashboard_is_exported_and_every_panel_asks_for_one() -> None:
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            names = named_metrics(target["expr"])
            assert names, panel["title"]
            assert names <= exported(), panel["title"]
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])


def test_labels_that_are_asked_for_are_exported() -> None:
    verdicts = {verdict for rule in rules() for verdict in re.findall(r'verdict="(\w+)"', rule["expr"])}
    assert verdicts == {"critical", "warning"}


def test_the_operator_gets_the_same_rules() -> None:
    (alerts,) = documents(DOCKER / "monitoring" / "alerts.yml")
    found = {document["kind"]: document for document in documents(KUBERNETES / "monitoring.yaml")}
    assert found["PrometheusRule"]["spec"] == alerts
    labels = found["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
    services = documents(KUBERNETES / "service.yaml")
    (chosen,) = [service for service in services if labels.items() <= service["metadata"]["labels"].items()]
    assert found["ServiceMonitor"]["spec"]["endpoints"][0]["port"] in {port["name"] for port in chosen["spec"]["ports"]}


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", DOCKER / "monitoring" / "alerts.yml"),
        ("test", "rules", Path(__file__).parent / "alerts_test.yml"),
    ],
    ids=["syntax", "given-figures"],
)
def test_promtool_takes_the_rules_and_they_say_what_they_should(arguments: tuple[str | Path, ...]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on this machine")
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried_on_given_figures() -> None:
    (document,) = documents(Path(__file__).parent / "alerts_test.yml")
    fired = {case["alertname"] for test in document["tests"] for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules()}


# -- Compose ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["compose.yml", "compose.namespace.yml"])
def test_settings_of_the_example_exist_and_no_secret_is_passed_on_empty(name: str) -> None:
    """An empty secret stops pgbackup, so one that is not in .env must not become an empty variable."""
    (document,) = documents(DOCKER / name)
    for service in document["services"].values():
        given = service.get("environment", {})
        ours = {
            key.removeprefix("PGBACKUP_").lower(): text for key, text in given.items() if key.startswith("PGBACKUP_")
        }
        assert set(ours) <= set(Settings.model_fields)
        assert not [key for key in SECRETS & set(ours) if ":-}" in str(ours[key] or "")]


def test_no_network_of_the_example_ends_with_the_server() -> None:
    """Who is in the network of a container that starts anew stays behind in one that leads nowhere."""
    (document,) = documents(DOCKER / "compose.namespace.yml")
    services = document["services"]
    modes = {name: service.get("network_mode") for name, service in services.items()}
    assert {modes[name] for name in ("postgres", "pgbackup", "role")} == {"service:network"}
    assert modes["network"] is None
    assert not set(services["network"]) & {"depends_on", "volumes", "network_mode"}


# -- systemd and AWS ----------------------------------------------------------------------------------------------


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    text = (DOCKER / "systemd" / "pgbackup.service").read_text("utf-8")
    assert "Type=notify\n" in text
    assert re.search(r"^WatchdogSec=", text, re.MULTILINE)
    # presence/owner.py reads /proc/sys/kernel/random/boot_id.
    assert not re.search(r"^ProcSubset=pid", text, re.MULTILINE)
    analyze = shutil.which("systemd-analyze")
    assert analyze is not None or not in_ci()
    if analyze is not None:
        unit = tmp_path / "pgbackup.service"
        unit.write_text(text.replace("/opt/pgbackup/bin/pgbackup", sys.executable))
        verified = subprocess.run(
            [analyze, "verify", str(unit)], capture_output=True, text=True, check=False, timeout=60
        )
        assert (verified.returncode, verified.stderr) == (0, "")
        command = [analyze, "security", "--offline=true", "--threshold=15", str(unit)]
        rated = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert rated.returncode == 0, rated.stdout[-400:]


def actions(name: str) -> set[str]:
    policy = json.loads((DOCKER / "iam" / name).read_text("utf-8"))
    assert policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        whole_bucket = statement["Resource"] == "arn:aws:s3:::BUCKET"
        assert whole_bucket == all("Bucket" in action for action in statement["Action"])
    return {action for statement in policy["Statement"] for action in statement["Action"]}


def test_the_policies_allow_what_the_code_asks_for_and_no_more() -> None:
    needed = set(s3_errors._PERMISSIONS.values())
    assert actions("policy.json") == needed
    assert actions("policy-without-delete.json") == needed - {"s3:DeleteObject"}
    assert actions("policy-restore.json") == {"s3:ListBucket", "s3:GetObject"}
