"""Save the database and the bucket of a service together, and put them back.

    python scripts/backup.py save FOLDER        while servers run
    python scripts/backup.py restore FOLDER     into an empty database and an empty bucket, before a server starts

Both take the service's own settings (NPN_DATABASE_URL, NPN_S3_*), and need pg_dump and psql of PostgreSQL on the PATH.

The database is saved first.  A key is in the bucket before a row speaks of it, and is removed only after no row does:
so the bucket, read later, has every byte that the saved rows speak of, unless it was collected meanwhile.  Hold back
deletions for as long (NPN_JOB_RETENTION, `npn delete`), or keep the bucket's versions.  What the bucket has beyond
the rows is collected after the restore.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qsl

from sqlalchemy import URL, make_url

from npn_service.settings import Settings
from npn_service.storage.s3_client import PATIENT, S3Settings, make_minio

ROWS, OBJECTS = "database.sql", "objects"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["save", "restore"])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    settings = Settings()
    url, s3 = make_url(settings.database_url.get_secret_value() or "sqlite://"), settings.s3
    if url.get_backend_name() != "postgresql" or s3 is None:
        sys.exit("this saves PostgreSQL and S3; back up a data folder by copying it while its server is down")
    if arguments.command == "save":
        save(arguments.folder, url, s3)
    else:
        restore(arguments.folder, url, s3)


def save(folder: Path, url: URL, s3: S3Settings) -> None:
    """Rows, then bytes, into a folder that must not hold a backup yet."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / ROWS).exists():
        sys.exit(f"{folder} holds a backup already; name another folder")
    unfinished = folder / f"{ROWS}.part"
    postgres("pg_dump", "--no-owner", "--no-privileges", "--file", str(unfinished), url=url)
    client = make_minio(s3, PATIENT)
    count = 0
    for found in client.list_objects(s3.bucket, recursive=True):
        client.fget_object(s3.bucket, str(found.object_name), str(folder / OBJECTS / str(found.object_name)))
        count += 1
    unfinished.replace(folder / ROWS)
    print(f"{folder}: the database and {count} objects")


def restore(folder: Path, url: URL, s3: S3Settings) -> None:
    """Bytes, then the rows that speak of them."""
    if not (folder / ROWS).exists():
        sys.exit(f"{folder} holds no complete backup: {ROWS} is missing")
    client = make_minio(s3, PATIENT)
    if next(iter(client.list_objects(s3.bucket)), None) is not None:
        sys.exit(f"the bucket {s3.bucket} is not empty; restore into one of its own")
    paths = [path for path in (folder / OBJECTS).rglob("*") if path.is_file()]
    for path in paths:
        client.fput_object(s3.bucket, path.relative_to(folder / OBJECTS).as_posix(), str(path))
    psql = ("psql", "--quiet", "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--single-transaction")
    postgres(*psql, "--file", str(folder / ROWS), url=url)
    print(f"{len(paths)} objects and the database of {folder}")


def postgres(*command: str, url: URL) -> None:
    """Run a program of PostgreSQL; the password goes through the environment, where `ps` does not show it."""
    query = dict(parse_qsl(url.render_as_string().partition("?")[2]))
    where = {
        "PGHOST": url.host or query.get("host"),
        "PGPORT": str(url.port or query.get("port") or ""),
        "PGUSER": url.username,
        "PGPASSWORD": url.password,
        "PGDATABASE": url.database,
    }
    given = {name: value for name, value in where.items() if value}
    done = subprocess.run(
        command,
        env=dict(os.environ) | given,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{command[0]} failed: {done.stderr.strip()}")


if __name__ == "__main__":
    main()
