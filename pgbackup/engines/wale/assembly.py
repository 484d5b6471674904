"""Puts the engine of a tool together from the settings."""

from __future__ import annotations

from collections.abc import Mapping

from pgbackup.config.settings import Settings
from pgbackup.engines.wale.base_backup import ToolBackup
from pgbackup.engines.wale.dialects import PushOptions, dialect
from pgbackup.engines.wale.driver import ToolDriver
from pgbackup.engines.wale.engine import ToolEngine
from pgbackup.engines.wale.environment import StorageSettings, tool_environment
from pgbackup.engines.wale.find import find_program
from pgbackup.postgres.libpq_environment import libpq_environment
from pgbackup.repository.codec import Codec
from pgbackup.storage.open import object_flusher


def tool_engine(
    settings: Settings, codec: Codec, conninfo: str, repository: str, environ: Mapping[str, str]
) -> ToolEngine:
    """``repository``: its URL with nothing left to fill in. Raises ToolError without the program, ConfigError."""
    speaks, key = dialect(settings.engine), settings.encryption_key
    storage = StorageSettings(
        repository=repository,
        compression=settings.compression,
        encryption_key=None if key is None else key.get_secret_value(),
        key_transform=settings.encryption_key_transform,
        part_bytes=settings.part_size,
        upload_concurrency=settings.upload_concurrency,
        backup_rate=settings.backup_rate,
        upload_rate=settings.upload_rate,
        endpoint=settings.store_connection.endpoint,
    )
    # Not the name of the WAL stream: the server would take these connections for the synchronous standby.
    name = f"{settings.application_name}-base"
    env = tool_environment(speaks, storage, libpq_environment(conninfo, application_name=name), environ)
    how = ToolBackup(
        driver=ToolDriver(speaks, find_program(settings.engine, settings.tool, environ), env),
        codec=codec,
        conninfo=conninfo,
        application_name=name,
        hostname=settings.host,
        data_directory=settings.pgdata,
        push=PushOptions(None, settings.upload_concurrency, None),
        settle=object_flusher(repository),
    )
    return ToolEngine(how, wal_concurrency=settings.wal_upload_concurrency)
