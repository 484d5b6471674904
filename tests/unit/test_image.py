"""The image: what it installs is pinned by hash and allowed by pyproject.toml, and nothing needed is cut out."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import botocore
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
FILES = ["requirements.txt", "requirements-build.txt"]


def blocks(name: str) -> list[str]:
    """One text a pinned package, its hashes included."""
    lines = [line for line in (DOCKER / name).read_text("utf-8").splitlines() if not line.startswith("#")]
    return [block for block in "\n".join(lines).replace("\\\n", " ").splitlines() if block.strip()]


def pinned(name: str) -> dict[str, Version]:
    found = {}
    for block in blocks(name):
        requirement = Requirement(block.partition("--hash")[0])
        (pin,) = requirement.specifier
        assert pin.operator == "==", block
        found[canonicalize_name(requirement.name)] = Version(pin.version)
    return found


def wanted(name: str) -> list[str]:
    if name == "requirements-build.txt":
        return list(PROJECT["build-system"]["requires"])
    return [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["apprise"]]


@pytest.mark.parametrize("name", FILES)
def test_every_package_has_hashes_and_no_file_names_an_index(name: str) -> None:
    for block in blocks(name):
        assert re.search(r" --hash=sha256:[0-9a-f]{64}", block), block
    text = (DOCKER / name).read_text("utf-8")
    assert not re.search(r"https?://|--index-url |--extra-index|--find-links |--trusted-host", text)


@pytest.mark.parametrize("name", FILES)
def test_what_is_pinned_is_what_the_project_allows(name: str) -> None:
    found = pinned(name)
    for text in wanted(name):
        requirement = Requirement(text)
        version = found.get(canonicalize_name(requirement.name))
        assert version is not None, f"{text} is not pinned: make docker/{name} anew, as it says"
        assert requirement.specifier.contains(version), f"{text}, but docker/{name} pins {version}"
        for extra in requirement.extras:
            assert any(extra in other for other in found if requirement.name in other), f"{text}: no {extra}"


def test_every_service_that_hands_out_credentials_stays() -> None:
    """What botocore makes clients of by itself, while it looks for credentials."""
    kept = re.search(r"AWS_SERVICES = \{(.*)\}", (DOCKER / "slim.py").read_text("utf-8"))
    assert kept is not None
    services = set(re.findall(r'"([a-z0-9-]+)"', kept[1]))
    package = Path(botocore.__file__).parent
    text = "".join(path.read_text("utf-8") for path in [*package.glob("*.py"), *package.glob("crt/*.py")])
    made = set(re.findall(r"""create_client\(\s*['"]([a-z0-9-]+)['"]|_client_creator\(\s*['"]([a-z0-9-]+)['"]""", text))
    used = {first or second for first, second in made}
    assert {"sts", "sso"} <= used
    assert used <= services
    assert all((package / "data" / service).is_dir() for service in services)


def test_progress_needs_no_pygments() -> None:
    """slim.py takes it out: a bar is drawn on a terminal, and an error of the command line printed, without it."""
    code = (
        "import sys; sys.modules['pygments'] = None\n"
        "from rich.console import Console; from rich.progress import Progress\n"
        "with Progress(console=Console(force_terminal=True, file=sys.stdout)) as bar:\n"
        "    bar.update(bar.add_task('shown', total=2), advance=1)\n"
        "from pgbackup.cli.main import main; sys.argv = ['pgbackup', 'livez']; main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PGBACKUP_HTTP": "off"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "shown" in done.stdout, "PGBACKUP_HTTP" in done.stderr) == (2, True, True), done.stderr


def test_the_build_sees_no_secret_and_no_history() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").split()
    assert "*" in lines
    assert lines.index("*") < min(i for i, line in enumerate(lines) if line.startswith("!"))
    assert not {"!.git", "!.env", "!.venv"} & set(lines)


def test_the_dockerfile_names_no_registry_and_no_index() -> None:
    text = (DOCKER / "Dockerfile").read_text("utf-8")
    assert not re.search(r"https?://|index-url|trusted-host|syntax=", text)
    assert 'ENTRYPOINT ["pgbackup"]' in text
    assert "STOPSIGNAL SIGTERM" in text
