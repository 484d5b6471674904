"""``pgbackup backup-fetch``: the files of one base backup and no more, as WAL-E and WAL-G leave them.

Recovery is the script's own affair: it writes restore_command and recovery.signal. `pgbackup restore` does all of it.
"""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pgbackup.cli.output import say
from pgbackup.cli.their_options import harmless, options_of_every_command, refused, tell_unused
from pgbackup.core.size_text import size_text
from pgbackup.errors import ConfigError, RestoreError

if TYPE_CHECKING:
    from pgbackup.app import App
    from pgbackup.core.backup import Backup
    from pgbackup.core.catalog import Catalog

_MAX_SPEC_BYTES = 1 << 20
_MOST_THREADS = 16
_PARTLY = "a part of a cluster does not start; restore all of it and drop what is not needed"
_USER_DATA = "user data is not kept with a backup; name one, or say LATEST"


@click.command("backup-fetch")
@click.argument("directory", type=click.Path(path_type=Path), metavar="DEST")
@click.argument("name", metavar="NAME|LATEST")
@click.option("--restore-spec", metavar="FILE|SOURCE", help="Where tablespaces go: WAL-G's JSON; SOURCE: as they lay.")
@click.option("-p", "--pool-size", type=click.IntRange(1), metavar="N", help="Objects read at once.")
@harmless("--blind-restore", why="the links of tablespaces are made, not expected")
@harmless("--reverse-unpack", why="each file is written once anyway")
@harmless("--skip-redundant-tars", why="there are none in a full backup")
@refused("--mask", why=_PARTLY)
@refused("--restore-only", why=_PARTLY)
@refused("--target-user-data", why=_USER_DATA)
@options_of_every_command
@click.pass_obj
def command(app: App, *, directory: Path, name: str, restore_spec: str | None, pool_size: int | None) -> None:
    """Fetch the files of base backup NAME, or of the newest one, into DEST, which must be empty or not there.

    Every file is checked against the backup's manifest. Nothing is set up for recovery: put restore_command =
    'pgbackup wal-fetch %f %p' and a recovery.signal there before the server starts, or use `pgbackup restore`.
    """
    from pgbackup.cli.progress import open_progress
    from pgbackup.core.recovery_target import Target
    from pgbackup.engines.restore.restore import Restore, RestoreRequest
    from pgbackup.repository.catalog_reader import read_for_restore

    threads = min(pool_size or app.settings.download_concurrency, _MOST_THREADS)
    tell_unused()
    with closing(app.open_readonly_store()) as store:
        codec = app.codec()
        catalog = read_for_restore(store, codec)
        backup = _chosen(catalog, name)
        request = RestoreRequest(
            directory=Path(os.path.normpath(Path.cwd() / directory)),
            target=Target("immediate"),
            backup=backup.name,
            tablespace_map=_tablespaces(restore_spec),
            threads=threads,
            files_only=True,
        )
        restore = Restore(store, codec, catalog, request, open_progress(), engine=app.engine())
        result = restore.run(restore.plan())
    say(f"Fetched {backup.name}, {size_text(result.raw_bytes)}, into {result.directory}", err=True)
    for note in result.notes:
        say(f"note: {note}", err=True)


def _chosen(catalog: Catalog, name: str) -> Backup:
    """The backup of that name; LATEST is the one whose seal is the youngest in the store. Raises RestoreError."""
    newest = max(catalog.backups, key=lambda b: (b.modified, b.name), default=None)
    found = newest if name == "LATEST" else catalog.backup(name)
    if found is None:
        raise RestoreError(
            f"there is no backup {name}" if catalog.backups else "there is no backup",
            hint="pgbackup backup-list shows the names.",
        )
    if name == "LATEST" and (why := catalog.why_not_restorable(found)):
        good = [b for b in catalog.backups if not catalog.why_not_restorable(b)]
        older = max(good, key=lambda b: (b.modified, b.name), default=None)
        hint = f"The newest that can be restored is {older.name}: name it." if older else "No other can be, either."
        raise RestoreError(f"the latest backup, {found.name}, cannot be restored: {why}", hint=hint)
    return found


def _tablespaces(spec: str | None) -> dict[str, str]:
    """OID -> place, from a restore spec of WAL-G or WAL-E. Raises ConfigError."""
    if spec is None or spec == "SOURCE":
        return {}
    path = Path(spec)
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_SPEC_BYTES + 1)
        document = json.loads(data) if len(data) <= _MAX_SPEC_BYTES else None
    except OSError as exc:
        raise ConfigError(f"cannot read {path}", detail=exc.strerror or str(exc)) from exc
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{path} is no restore spec", detail=f"not JSON: {exc}") from exc
    if not isinstance(document, dict) or not isinstance(document.get("tablespaces", []), list):
        raise ConfigError(
            f"{path} is no restore spec", hint='It looks like {"tablespaces": ["1"], "1": {"loc": "/x"}}.'
        )
    found = {}
    for oid in document.get("tablespaces", []):
        entry = document.get(str(oid))
        place = entry.get("loc") if isinstance(entry, dict) else None
        if not isinstance(oid, str) or not isinstance(place, str) or not place.startswith("/"):
            raise ConfigError(f"{path}: tablespace {oid!r} has no absolute loc")
        found[oid] = place.rstrip("/") or "/"
    return found
