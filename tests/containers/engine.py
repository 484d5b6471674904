"""The container engine and Compose, as the container test uses them: one project, thrown away at the end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMMAND_SECONDS = 600


class Failed(Exception):
    """Something is not as it must be."""


def run(*command: str, env: Mapping[str, str] | None = None, check: bool = True) -> str:
    """What a program printed on stdout. Raises Failed with the end of what it said when it fails."""
    done = subprocess.run(
        command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        errors="replace", timeout=COMMAND_SECONDS, check=False,
    )  # fmt: skip
    if check and done.returncode:
        said = (done.stdout + done.stderr)[-3000:]
        raise Failed(f"{' '.join(command)}: exit {done.returncode}\n{said}")
    return done.stdout


def find_compose() -> list[str]:
    """``COMPOSE`` in the environment, Compose 2 as a plugin of docker, or the program of its own name."""
    if given := os.environ.get("COMPOSE"):
        return given.split()
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise Failed("neither `docker compose` nor `docker-compose` is here")


def wait_for(what: str, reached: Callable[[], Any], seconds: float) -> Any:
    """Ask until the answer is true; a command that fails counts as no. Raises Failed with the last failure."""
    deadline, last = time.monotonic() + seconds, ""
    while True:
        try:
            if found := reached():
                return found
        except (Failed, ValueError, KeyError) as exc:
            last = f": {exc}"
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds:g} s{last}")
        time.sleep(0.3)


@dataclass
class Project:
    """docker/compose.yml with compose.test.yml on top. ``variables`` are those of the .env file."""

    name: str
    variables: dict[str, str]
    compose_program: list[str] = field(default_factory=find_compose)
    files: tuple[str, ...] = ("docker/compose.yml", "compose.test.yml")

    def compose(self, *arguments: str, check: bool = True) -> str:
        """Run Compose as the README says, but for the names of the files."""
        named = [part for name in self.files for part in ("-f", name)]
        program = [*self.compose_program, "--project-directory", ".", "-p", self.name, *named]
        return run(*program, *arguments, env=os.environ | self.variables, check=check)

    def container(self, service: str) -> str:
        """The id of a service's container."""
        found = run(
            "docker", "ps", "-aq",
            "--filter", f"label=com.docker.compose.project={self.name}",
            "--filter", f"label=com.docker.compose.service={service}",
            "--filter", "label=com.docker.compose.oneoff=False",
        ).split()  # fmt: skip
        if len(found) != 1:
            raise Failed(f"{len(found)} containers of {service}")
        return found[0]

    def inspect(self, service: str) -> Any:
        return json.loads(run("docker", "inspect", self.container(service)))[0]

    def execute(self, service: str, *command: str, check: bool = True) -> str:
        """Run a command in a service's container."""
        return run("docker", "exec", self.container(service), *command, check=check)

    def pgbackup(self, *arguments: str) -> Any:
        """The document that a command of pgbackup prints, in its own container; its exit code counts for nothing."""
        return json.loads(self.execute("pgbackup", "pgbackup", *arguments, "--json", check=False))

    def sql(self, text: str) -> str:
        """One value from the server."""
        return self.execute("postgres", "psql", "-h", "127.0.0.1", "-U", "postgres", "-XAtq", "-c", text).strip()

    def logs(self, service: str) -> str:
        container = self.container(service)
        done = subprocess.run(
            ["docker", "logs", container], capture_output=True, text=True, errors="replace", check=False
        )
        return done.stdout + done.stderr

    def remove(self) -> None:
        self.compose("--profile", "restore", "down", "-v", "-t", "3", "--remove-orphans", check=False)
