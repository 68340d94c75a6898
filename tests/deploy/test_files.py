"""The files in `deploy/` start commands that there are, with options and variables that these understand, and ask ports
that they open.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from pgflow.cli import main
from pgflow.store.queries import exporting

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVED = {"/metrics", "/livez", "/readyz"}
LAST_WORD = 12
"""Seconds for which a worker may take longer than its grace period."""


def documents(name: str) -> list[Any]:
    """The documents of a YAML file."""
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def containers() -> Iterator[dict[str, Any]]:
    """Those of the manifests."""
    for name in ("migrate", "worker", "exporter"):
        for document in documents(f"kubernetes/{name}.yaml"):
            yield from document["spec"]["template"]["spec"]["containers"]


def units() -> Iterator[tuple[str, dict[str, list[str]]]]:
    """The settings of the units, by their names."""
    for path in sorted((DEPLOY / "systemd").glob("*.service")):
        found: dict[str, list[str]] = {}
        for line in path.read_text().splitlines():
            name, sign, value = line.partition("=")
            if sign and not line.startswith("#"):
                found.setdefault(name, []).append(value)
        yield path.name, found


def services() -> dict[str, Any]:
    """Those of the compose file that are ours."""
    found = documents("container/compose.yaml")[0]["services"]
    return {name: service for name, service in found.items() if name != "database"}


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command line, without the program's name."""
    for name, service in services().items():
        yield f"compose {name}", service["command"]
    for container in containers():
        yield f"kubernetes {container['name']}", container["args"]
    for name, unit in units():
        (line,) = unit["ExecStart"]
        program, *words = shlex.split(line.replace("%i", "shop.workflows"))
        assert program.endswith("/bin/pgflow")
        yield f"systemd {name}", words


def variables() -> Iterator[str]:
    """Every variable of ours that a file sets or names."""
    for path in DEPLOY.rglob("*"):
        if path.is_file():
            yield from re.findall(r"\bPGFLOW_[A-Z_]+", path.read_text())


def known(command: click.Command = main) -> Iterator[str]:
    """Every variable that a command reads."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from known(found)
        return
    for option in command.params:
        if isinstance(option, click.Option) and isinstance(option.envvar, str):
            yield option.envvar


@pytest.mark.parametrize(
    ("where", "words"), list(commands()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_commands_are_understood(where: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGFLOW_DATABASE_URL", "postgresql://database/shop")
    context, command = click.Context(main), main
    while isinstance(command, click.Group):
        name, *words = words
        found = command.get_command(context, name)
        assert found is not None, f"{where}: there is no command {name}"
        command = found  # type: ignore[assignment]
    command.make_context(where, words)  # an option that there is not raises


def test_variables_are_read_by_somebody() -> None:
    assert set(variables()) - set(known()) == set()


def test_probes_ask_what_is_served() -> None:
    """At the port that the worker opens, and the exporter."""
    for container in containers():
        ports = {port["name"]: port["containerPort"] for port in container.get("ports", ())}
        given = {entry["name"]: entry.get("value") for entry in container["env"]}
        for probe in ("readinessProbe", "livenessProbe"):
            if probe in container:
                asked = container[probe]["httpGet"]
                assert asked["path"] in SERVED and asked["port"] in ports
        if container["name"] == "worker":
            assert str(ports["metrics"]) == given["PGFLOW_METRICS_PORT"]
    image = (DEPLOY / "container/Containerfile").read_text()
    (port,) = re.findall(r"PGFLOW_METRICS_PORT=(\d+)", image)
    assert f"127.0.0.1:{port}/livez" in services()["worker"]["healthcheck"]["test"][-1]


def test_stops_wait_for_longer_than_the_grace_period() -> None:
    worker = documents("kubernetes/worker.yaml")[0]["spec"]["template"]["spec"]
    given = {entry["name"]: entry.get("value") for entry in worker["containers"][0]["env"]}
    assert worker["terminationGracePeriodSeconds"] > int(given["PGFLOW_WORKER_GRACE"]) + LAST_WORD
    composed = services()["worker"]
    assert (
        int(composed["stop_grace_period"].rstrip("s")) > int(composed["environment"]["PGFLOW_WORKER_GRACE"]) + LAST_WORD
    )
    unit = dict(units())["pgflow-worker@.service"]
    (grace,) = re.findall(r"PGFLOW_WORKER_GRACE=(\d+)", " ".join(unit["Environment"]))
    assert int(unit["TimeoutStopSec"][0]) > int(grace) + LAST_WORD
    assert unit["KillMode"] == ["mixed"]  # the command ends its processes itself


def test_scaling_goes_by_a_metric_that_there_is() -> None:
    (scaling,) = documents("kubernetes/scaling.yaml")
    metric = scaling["spec"]["metrics"][0]["external"]["metric"]
    assert f'"{metric["name"]}"' in Path(exporting.__file__).read_text() and set(metric["selector"]["matchLabels"]) <= {
        "queue",
        "workflow",
    }
    assert scaling["spec"]["scaleTargetRef"]["name"] == documents("kubernetes/worker.yaml")[0]["metadata"]["name"]


def test_the_manifests_name_the_secrets_that_they_make() -> None:
    (kustomization,) = documents("kubernetes/kustomization.yaml")
    (made,) = kustomization["secretGenerator"]
    keys = {literal.partition("=")[0] for literal in made["literals"]}
    asked = {
        (entry["valueFrom"]["secretKeyRef"]["name"], entry["valueFrom"]["secretKeyRef"]["key"])
        for container in containers()
        for entry in container["env"]
        if "valueFrom" in entry
    }
    assert asked == {(made["name"], key) for key in keys}
    assert {path.name for path in (DEPLOY / "kubernetes").iterdir()} == {
        "kustomization.yaml",
        *kustomization["resources"],
    }


def test_the_tools_that_are_here_accept_them(tmp_path: Path) -> None:
    """systemd and kubectl read them, where they are installed."""
    if (analyze := shutil.which("systemd-analyze")) is not None:
        for path in (DEPLOY / "systemd").glob("*.service"):
            text = re.sub(r"/opt/pgflow/venv/bin/pgflow", "/bin/true", path.read_text())
            copy = tmp_path / path.name.replace("@.", "@shop.workflows.")
            copy.write_text(text)
            done = subprocess.run([analyze, "verify", str(copy)], capture_output=True, text=True)
            assert str(copy.name) not in done.stderr, done.stderr
    if (kubectl := shutil.which("kubectl")) is not None:
        done = subprocess.run([kubectl, "kustomize", str(DEPLOY / "kubernetes")], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
