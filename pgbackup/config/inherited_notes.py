"""What pgbackup makes of the variables of WAL-E and WAL-G that it does not follow: a sentence each, for `check`."""

from __future__ import annotations

_FIXED_NAMES = {
    "WALG_PREVENT_WAL_OVERWRITE": "pgbackup never overwrites WAL",
    "WALG_PG_WAL_SIZE": "the segment size is read from the server",
    "WALG_PG_BLOCK_SIZE": "the block size is read from the server",
    "WALG_PG_WAL_PAGE_SIZE": "the page size is read from the server",
    "WALG_DELTA_ORIGIN": "base backups are full ones",
    "WALG_DELTA_FROM_NAME": "base backups are full ones",
    "WALG_DELTA_FROM_USER_DATA": "base backups are full ones",
    "WALG_USE_WAL_DELTA": "base backups are full ones",
    "WALG_FORCE_WAL_DELTA": "base backups are full ones",
    "WALG_TAR_SIZE_THRESHOLD": "PGBACKUP_PART_SIZE says how large a part is",
    "WALG_SLOTNAME": "the slot of pgbackup is PGBACKUP_SLOT",
    "WALG_VERIFY_PAGE_CHECKSUMS": "the server verifies page checksums in every base backup",
    "WALG_TAR_DISABLE_FSYNC": "a restore is always flushed to the disk",
    "WALG_LOG_LEVEL": "PGBACKUP_LOG_LEVEL counts",
    "WALG_LOG_DESTINATION": "logs go to stderr",
    "WALE_LOG_DESTINATION": "logs go to stderr",
    "WALE_SYSLOG_FACILITY": "logs go to stderr",
    "WALG_ZSTD_LEVEL": "WALG_COMPRESSION_METHOD is not zstd, or PGBACKUP_COMPRESSION counts",
    "WALG_PGP_KEY_PASSPHRASE": "no key of OpenPGP is used",
    "WALG_CSE_KMS_REGION": "no key of AWS KMS is used",
}
_LOSING = {
    "S3_RETENTION_PERIOD": "objects are not locked one by one: set a default retention for the bucket",
    "S3_RETENTION_MODE": "objects are not locked one by one: set a default retention for the bucket",
    "S3_STORAGE_CLASS": "objects are stored in the bucket's standard class: use a lifecycle rule",
    "FAILOVER_STORAGES": "there is one repository, without others to fall back to",
    "SENTINEL_USER_DATA": "user data is not kept with a backup",
    "FETCH_TARGET_USER_DATA": "backups are not chosen by user data: name one",
    "CONFIG_PATH": "configuration files of WAL-G are not read",
}
_UNKNOWN = "it changes nothing that pgbackup does"


def why_ignored(variable: str) -> tuple[str, bool]:
    """Why a variable of theirs is not followed, and whether that takes something away that its user asked for."""
    bare = variable.removeprefix("WALG_").removeprefix("WALE_")
    if bare in _LOSING:
        return _LOSING[bare], True
    return _FIXED_NAMES.get(variable, _UNKNOWN), False
