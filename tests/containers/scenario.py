"""The end-to-end test in containers: the example that people copy, from `up` to a restore by the README's recipe.

Every step is a function that raises Failed; the summary names each with its time. Needs a container engine and Compose,
and the image that BASE_IMAGE names (debian:bookworm-slim). KEEP=1 leaves everything running after a failure.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from engine import ROOT, Failed, Project, find_compose, run, wait_for

MEMORY_BYTES = 256 << 20
IMAGE_BYTES = 250 * 10**6
VOLUME = "/var/lib/postgresql"
_COUNT = "SELECT count(*) || ' ' || coalesce(md5(string_agg(id || text, ',' ORDER BY id)), '') FROM goods"
_SHIPPED = "SELECT pg_current_wal_flush_lsn() <= max(restart_lsn) FROM pg_replication_slots WHERE active"
_INSIDE = """
import glob, json, os
status = dict(line.split(":", 1) for line in open("/proc/1/status") if ":" in line)
there = [path for path in glob.glob("/proc/[0-9]*/stat") if os.path.exists(path)]
states = [open(path).read().rpartition(")")[2].split()[0] for path in there]
cgroup = "/sys/fs/cgroup/"
peaks = [cgroup + n for n in ("memory.peak", "memory/memory.max_usage_in_bytes") if os.path.exists(cgroup + n)]
writable = [f for f in ("/", "/etc", "/opt/pgbackup", "/usr") if not os.statvfs(f).f_flag & os.ST_RDONLY]
folders = os.environ["PATH"].split(":")
programs = [n for n in ("pip", "pip3", "gcc", "cc", "make", "ld") for d in folders if os.path.exists(f"{d}/{n}")]
print(json.dumps({
    "uid": status["Uid"].split(), "groups": status["Groups"].split(), "capabilities": int(status["CapEff"], 16),
    "bounding": int(status["CapBnd"], 16), "no_new_privileges": status["NoNewPrivs"].strip(),
    "command": open("/proc/1/cmdline").read().split("\\0")[:-1], "zombies": states.count("Z"),
    "peak": int(open(peaks[0]).read()) if peaks else None, "writable": writable, "programs": programs,
}))
"""


def read_example() -> dict[str, str]:
    """The variables of docker/example.env, as a user has them in .env."""
    lines = (ROOT / "docker" / "example.env").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


class Scenario:
    """The steps, in their order."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.notes: list[str] = []
        self._before: datetime | None = None
        self._rows = ""

    def note(self, text: str) -> None:
        self.notes.append(text)

    # -- the steps ------------------------------------------------------------------------------------------------

    def build(self) -> None:
        """the images are built"""
        # The engine's own builder: it needs no plugin. It caches each step that has not changed.
        self.project.compose("--profile", "restore", "build")
        size = int(run("docker", "image", "inspect", "-f", "{{.Size}}", "pgbackup-test"))
        base = int(
            run("docker", "image", "inspect", "-f", "{{.Size}}", os.environ.get("BASE_IMAGE", "debian:bookworm-slim"))
        )
        self.note(f"the image has {size / 1e6:.0f} MB, {(size - base) / 1e6:.0f} MB more than its base")
        if size > IMAGE_BYTES:
            raise Failed(f"the image has {size / 1e6:.0f} MB")

    def start(self) -> None:
        """`up` and nothing else: there is a first backup that can be restored"""
        begin = time.monotonic()
        self.project.compose("up", "-d")
        wait_for("the first backup", self._restorable, 120)
        self.note(f"the first backup was there {time.monotonic() - begin:.0f} s after `up`")
        said = self.project.logs("role")
        if "nothing is left to do" not in said:
            raise Failed(f"init --apply said\n{said}")

    def write_rows(self) -> None:
        """rows are written, and everything is green"""
        self.project.sql("CREATE TABLE goods (id serial PRIMARY KEY, text text)")
        self._insert()
        self._wait_ok()

    def look_inside(self) -> None:
        """pgbackup is PID 1, not root, without capabilities, on a read-only root, within 256 MiB"""
        inside = self._inside()
        host = self.project.inspect("pgbackup")["HostConfig"]
        image = json.loads(run("docker", "image", "inspect", "pgbackup-test"))[0]["Config"]
        wrong = {
            "uid": set(inside["uid"]) != {"10001"} or inside["groups"] not in ([], ["10001"]),
            "capabilities": inside["capabilities"] or inside["bounding"],
            "no_new_privileges": inside["no_new_privileges"] != "1",
            "command": inside["command"][-2:] != ["/opt/pgbackup/bin/pgbackup", "run"],
            "read-only": bool(inside["writable"]) or not host["ReadonlyRootfs"],
            "memory": host["Memory"] != MEMORY_BYTES,
            "programs": bool(inside["programs"]),
            "stop signal": image["StopSignal"] != "SIGTERM",
            "health check": image["Healthcheck"]["Test"] != ["CMD", "pgbackup", "livez"],
            "labels": not {f"org.opencontainers.image.{n}" for n in ("title", "version", "revision")}
            <= set(image["Labels"]),
            "secrets": any(name in text for text in image["Env"] for name in ("SECRET", "PASSWORD", "KEY")),
        }
        if bad := [name for name, is_wrong in wrong.items() if is_wrong]:
            raise Failed(f"not as it must be: {', '.join(bad)}: {inside}")
        wait_for("the health check of the engine", lambda: self._state("pgbackup")["Health"]["Status"] == "healthy", 60)

    def check_ways_in(self) -> None:
        """`check`: the socket and the shared network let it in; over TCP it prints the line that is missing"""
        lines = {line["name"]: line for line in self.project.pgbackup("check")["checks"]}
        if lines["pg_hba.conf"]["status"] != "ok" or lines["role"]["status"] != "ok":
            raise Failed(f"over the socket: {lines}")
        shared = self._check_from(f"container:{self.project.container('postgres')}", "127.0.0.1")
        if shared["pg_hba.conf"]["status"] != "ok":
            raise Failed(f"in the network of the server: {shared}")
        self.project.sql("ALTER ROLE pgbackup PASSWORD 'of the test'")
        refused = self._check_from(f"{self.project.name}_default", "postgres")["pg_hba.conf"]
        line = re.search(r"host +replication +pgbackup +samenet +scram-sha-256", refused.get("hint") or "")
        if refused["status"] != "failure" or line is None:
            raise Failed(f"over TCP: {refused}")
        place = f"{VOLUME}/{self.project.variables['PGDATA_NAME']}/pg_hba.conf"
        self.project.execute("postgres", "sh", "-c", f"echo '{line[0]}' >> {place}")
        self.project.sql("SELECT pg_reload_conf()")
        again = wait_for("the new line", lambda: self._let_in_over_tcp(), 20)
        self.note(f"`check` over TCP: {again['text']}, once the line that it printed was in pg_hba.conf")

    def kill_each(self) -> None:
        """each container is killed and started again; no row is lost, and it ends green"""
        for service in ("store", "pgbackup", "postgres"):
            self._insert()
            run("docker", "kill", "--signal", "KILL", self.project.container(service))
            if service != "postgres":
                self._insert()
            self.project.compose("up", "-d")
            wait_for(f"{service} to run again", lambda name=service: self._state(name)["Running"], 30)
            wait_for("the server", lambda: self.project.sql("SELECT 1") == "1", 60)
            self._insert()
        self._wait_ok()

    def tell_people(self) -> None:
        """the receiver of webhooks hears the test alert"""
        self.project.execute("pgbackup", "pgbackup", "alerts", "test")
        bodies = [json.loads(line) for line in self.project.logs("receiver").splitlines()]
        if not any(body["kind"] == "test" and body["host"] == "compose" for body in bodies):
            raise Failed(f"the receiver heard {bodies}")
        self.note(f"the receiver heard {len(bodies)} alerts: {', '.join(sorted({b['key'] for b in bodies}))}")

    def drop_table(self) -> None:
        """a table is dropped"""
        self._rows = self.project.sql(_COUNT)
        time.sleep(1.1)
        self._before = datetime.now(UTC)
        time.sleep(1.1)
        self.project.sql("DROP TABLE goods")
        self._wait_ok()

    def restore(self) -> None:
        """restored by the recipe: stop, restore into a new directory, name it, start; every row is there"""
        assert self._before is not None
        begin = time.monotonic()
        self.project.compose("stop", "postgres", "pgbackup")
        codes = {name: self._state(name)["ExitCode"] for name in ("postgres", "pgbackup")}
        if codes != {"postgres": 0, "pgbackup": 0}:
            raise Failed(f"exit codes after stop: {codes}")
        stopped = time.monotonic()
        target = f"{VOLUME}/restored"
        self.project.compose("run", "--rm", "restore", "--target", target, "--to", self._before.isoformat())
        restored = time.monotonic()
        self.project.variables["PGDATA_NAME"] = "restored"
        self.project.compose("up", "-d")
        wait_for("the rows", lambda: self.project.sql(_COUNT) == self._rows, 60)
        owners = self.project.execute("postgres", "find", target, "!", "-uid", "999").split()
        if owners:
            raise Failed(f"not owned by 999: {owners[:5]}")
        took = [stopped - begin, restored - stopped, time.monotonic() - restored]
        self.note("stop {:.0f} s, restore {:.0f} s, start and recovery {:.0f} s".format(*took))

    def go_on(self) -> None:
        """the restored server is protected: a backup of the new timeline, and green"""
        wait_for("a backup of the new timeline", lambda: any(self._restorable(timeline=2)), 120)
        self._insert()
        self._wait_ok()

    def restore_for_alpine(self) -> None:
        """a volume that belongs to uid 70 gets its files with that owner"""
        volume = f"{self.project.name}_alpine"
        run("docker", "volume", "create", volume)
        mount, image = ("-v", f"{volume}:{VOLUME}"), "pgbackup-test-postgres"
        try:
            run("docker", "run", "--rm", *mount, "--entrypoint", "chown", image, "70:70", VOLUME)
            environment = [part for text in self._restore_environment() for part in ("-e", text)]
            run(
                "docker", "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--user", "0:0", "--cap-drop", "ALL",
                "--cap-add", "CHOWN", "--cap-add", "DAC_OVERRIDE", "--cap-add", "FOWNER", *mount,
                "--network", f"{self.project.name}_default", *environment, "pgbackup-test",
                "restore", "--target", f"{VOLUME}/pgdata", "--timeline", "2",
            )  # fmt: skip
            others = run(
                "docker", "run", "--rm", *mount, "--entrypoint", "find", image, VOLUME, "!", "-uid", "70"
            ).split()
            mode = run(
                "docker", "run", "--rm", *mount, "--entrypoint", "stat", image, "-c", "%a", f"{VOLUME}/pgdata"
            ).strip()
            if [path for path in others if not path.endswith("/data")] or mode != "700":
                raise Failed(f"mode {mode}, not owned by 70: {others[:5]}")
        finally:
            run("docker", "volume", "rm", "-f", volume, check=False)

    def share_network(self) -> None:
        """the other way in, compose.namespace.yml: a server that is killed and started again is still backed up"""
        built = {"PGBACKUP_IMAGE": "pgbackup-test", "POSTGRES_IMAGE": "pgbackup-test-postgres", "PGDATA_NAME": "pgdata"}
        theirs = {"PGBACKUP_REPOSITORY": "s3://backups/shared-network", "AWS_ENDPOINT_URL": "http://store:8333"}
        other = Project(
            f"{self.project.name}-network", self.project.variables | built | theirs,
            self.project.compose_program, ("docker/compose.namespace.yml",),
        )  # fmt: skip
        beside, store, network = Scenario(other), self.project.container("store"), f"{other.name}_default"
        try:
            other.compose("up", "-d", "network")
            run("docker", "network", "connect", "--alias", "store", network, store)
            beside.start()
            run("docker", "kill", "--signal", "KILL", other.container("postgres"))
            other.compose("up", "-d")
            wait_for("the server", lambda: other.sql("SELECT 1") == "1", 60)
            other.sql("CREATE TABLE goods AS SELECT 1")
            wait_for("the store to have it", lambda: other.sql(_SHIPPED) == "t", 60)
        except Failed as failure:
            raise Failed(f"{failure}\n--- its pgbackup\n{_tail(other, 'pgbackup')}") from None
        finally:
            run("docker", "network", "disconnect", network, store, check=False)
            other.remove()

    def look_again(self) -> None:
        """no zombies, no restart, never out of memory"""
        for _ in range(3):
            run("docker", "exec", "-d", self.project.container("pgbackup"), "sh", "-c", "sleep 1 & exec sleep 2")
        time.sleep(3)
        wait_for("orphans to be reaped", lambda: self._inside()["zombies"] == 0, 60)
        inside, state = self._inside(), self.project.inspect("pgbackup")
        if state["RestartCount"] or state["State"]["OOMKilled"]:
            raise Failed(f"restarts: {state['RestartCount']}, out of memory: {state['State']['OOMKilled']}")
        if inside["peak"]:
            self.note(f"pgbackup's container used at most {inside['peak'] / (1 << 20):.0f} MiB of 256 MiB")

    def stop(self) -> None:
        """`down`: everything ends by itself, and in time"""
        begin = time.monotonic()
        self.project.compose("stop")
        took = time.monotonic() - begin
        codes = {name: self._state(name)["ExitCode"] for name in ("postgres", "pgbackup")}
        if codes != {"postgres": 0, "pgbackup": 0} or took > 45:
            raise Failed(f"after {took:.0f} s the exit codes are {codes}")
        last = self.project.logs("pgbackup").splitlines()[-1]
        if not last.endswith(": stopped"):
            raise Failed(f"pgbackup's last word: {last}")
        self.note(f"stopped in {took:.0f} s")

    # -- what they ask --------------------------------------------------------------------------------------------

    def _inside(self) -> dict[str, object]:
        return json.loads(self.project.execute("pgbackup", "python3", "-c", _INSIDE))

    def _state(self, service: str) -> dict[str, object]:
        return self.project.inspect(service)["State"]

    def _restorable(self, timeline: int = 1) -> list[str]:
        listed = self.project.pgbackup("list").get("backups", [])  # an error at first: there is no repository yet
        names = [b["name"] for b in listed if b["restorable"]]
        return [name for name in names if name.startswith(f"base_{timeline:08X}")]

    def _insert(self) -> None:
        self.project.sql("INSERT INTO goods (text) SELECT md5(random()::text) FROM generate_series(1, 1000)")

    def _wait_ok(self) -> None:
        """Until the verdict of the running process is ok and nothing would be lost."""
        url = "http://127.0.0.1:8778/status.json"
        ask = f"import urllib.request as u; print(u.urlopen('{url}', timeout=5).read().decode())"

        def is_ok() -> bool:
            status = json.loads(self.project.execute("pgbackup", "python3", "-c", ask))
            if status["verdict"] not in ("ok", "warning") or status["wal"]["lag_bytes"] != 0:
                raise Failed(json.dumps({"verdict": status["verdict"], "findings": status["findings"]}))
            return True

        wait_for("the verdict", is_ok, 120)

    def _restore_environment(self) -> list[str]:
        names = ("PGBACKUP_REPOSITORY", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        texts = self.project.inspect("pgbackup")["Config"]["Env"]
        return [text for text in texts if text.partition("=")[0] in names]

    def _check_from(self, network: str, host: str) -> dict[str, dict[str, str]]:
        environment = [*self._restore_environment(), f"PGHOST={host}", "PGUSER=pgbackup", "PGPASSWORD=of the test"]
        given = [part for text in environment for part in ("-e", text)]
        command = (
            "docker",
            "run",
            "--rm",
            "--read-only",
            "--network",
            network,
            *given,
            "pgbackup-test",
            "check",
            "--json",
        )
        return {line["name"]: line for line in json.loads(run(*command, check=False))["checks"]}

    def _let_in_over_tcp(self) -> dict[str, str] | None:
        found = self._check_from(f"{self.project.name}_default", "postgres")["pg_hba.conf"]
        return found if found["status"] == "ok" else None


def main() -> int:
    """Run the steps; returns the exit code."""
    compose = find_compose()
    project = Project(f"pgbackup-test-{os.getpid()}", read_example() | {"POSTGRES_PORT": "0"}, compose)
    scenario = Scenario(project)
    steps: list[Callable[[], None]] = [
        scenario.build, scenario.start, scenario.write_rows, scenario.look_inside, scenario.check_ways_in,
        scenario.kill_each, scenario.tell_people, scenario.drop_table, scenario.restore, scenario.go_on,
        scenario.restore_for_alpine, scenario.share_network, scenario.look_again, scenario.stop,
    ]  # fmt: skip
    version = run(*compose, "version", "--short", check=False).strip() or run(*compose, "version").splitlines()[0]
    print(f"containers: {' '.join(compose)} {version}", flush=True)
    begin, passed, failure = time.monotonic(), 0, ""
    for step in steps:
        began, told = time.monotonic(), len(scenario.notes)
        try:
            step()
        except Exception as exc:  # noqa: BLE001 - whatever it is belongs into the summary
            failure = f"{type(exc).__name__}: {exc}"
        print(f"{'FAILED' if failure else 'ok':<6} {time.monotonic() - began:5.1f} s  {step.__doc__}", flush=True)
        for note in scenario.notes[told:]:
            print(f"{'':16}{note}", flush=True)
        if failure:
            break
        passed += 1
    if failure:
        print(f"\n{failure}\n")
        for service in ("pgbackup", "postgres", "role", "store"):
            print(f"--- {service}\n{_tail(project, service)}")
    if not (failure and os.environ.get("KEEP")):
        project.remove()
    print(f"containers: {time.monotonic() - begin:.0f} s")
    print(f"{passed} passed, {len(steps) - passed} failed")
    return 1 if failure else 0


def _tail(project: Project, service: str) -> str:
    try:
        return project.logs(service)[-3000:]
    except Failed as exc:
        return str(exc)


if __name__ == "__main__":
    sys.exit(main())
