"""Takes out of an installed pgbackup what it never opens: for images, run once while they are built.

botocore describes every service of AWS (28 MB); pgbackup talks to S3, and to the services that hand out credentials for
it. zstandard brings a second implementation of itself for other interpreters (12 MB). Rich uses Pygments (6 MB) to
colour source code, never for progress bars.
"""

import shutil
import sys
from pathlib import Path

AWS_SERVICES = {"s3", "signin", "sso", "sso-oidc", "sts"}


def slim(environment: Path) -> None:
    """Remove it below a virtual environment. Fails when a library is not laid out as it was."""
    (packages,) = environment.glob("lib/python3*/site-packages")
    services = [entry for entry in (packages / "botocore" / "data").iterdir() if entry.is_dir()]
    missing = AWS_SERVICES - {entry.name for entry in services}
    if missing:
        sys.exit(f"botocore does not know {', '.join(sorted(missing))} any more")
    for entry in services:
        if entry.name not in AWS_SERVICES:
            shutil.rmtree(entry)
    (unused,) = (packages / "zstandard").glob("_cffi.*.so")
    unused.unlink()
    shutil.rmtree(packages / "pygments")


if __name__ == "__main__":
    slim(Path(sys.argv[1]))
