"""Objects of an S3 store, or of anything that speaks its protocol; the one file that talks to boto3.

Which store, which region and which credentials stand where every AWS tool looks for them (AWS_ENDPOINT_URL, AWS_PROFILE, ~/.aws, a role).
"""

import re
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iadr1.errors import DatasetError, ParamsError
from tasks._manifest import Entry, faults_of, hashed

WORKERS = 16  # objects that are on their way at a time
CHUNK = 1 << 16  # of a connection that breaks, no more than this has to be brought again
PATIENCE = 4  # how often in a row a connection may break without having brought a chunk
PAUSE = 0.25  # seconds before the first new attempt; doubled before each further one

Moved = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Store:
    """A bucket, and what the keys of its objects begin with."""

    client: Any
    bucket: str
    prefix: str
    signed: bool

    def address(self, entry: Entry) -> str:
        """The name of an object for a person."""
        return f"s3://{self.bucket}/{self.prefix}{entry.path}"


def store_at(address: str) -> Store:
    """The place that s3://BUCKET/PREFIX names; without credentials it is asked as a public one."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    parts = re.fullmatch(r"s3://([a-zA-Z0-9.\-_]{3,63})(?:/(.*))?", address)
    if parts is None:
        raise ParamsError(f"fetch.path: {address!r} is no place in an S3 store. Write s3://BUCKET/PREFIX.")
    session = boto3.Session()
    signed = session.get_credentials() is not None
    config = Config(
        connect_timeout=10,
        max_pool_connections=WORKERS,
        retries={"mode": "standard", "total_max_attempts": 3},
        response_checksum_validation="when_required",  # the manifest says more, and some stores cannot
        **({} if signed else {"signature_version": UNSIGNED}),
    )
    prefix = (parts[2] or "").strip("/")
    return Store(session.client("s3", config=config), parts[1], f"{prefix}/" if prefix else "", signed)


def bring(store: Store, entry: Entry, *, to: Path, partial: Path, moved: Moved) -> str | None:
    """Bring an object to `to`, going on where `partial` ends; what is wrong with the object in words, and then nothing of it is left.

    Raises DatasetError for what is wrong with the store; a broken connection leaves `partial` for the next run.
    """
    while True:
        resumed = _size(partial)
        fault = _completed(store, entry, partial, moved)
        if fault is None:
            to.parent.mkdir(parents=True, exist_ok=True)
            partial.replace(to)
            return None
        moved(-_size(partial))
        partial.unlink(missing_ok=True)
        if not resumed:
            return fault
        # What an earlier run left may be of another version of the object: once more, from its beginning.


def _completed(store: Store, entry: Entry, partial: Path, moved: Moved) -> str | None:
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectionError,
        HTTPClientError,
        IncompleteReadError,
        ResponseStreamingError,
    )

    broken = 0
    while True:
        before = _size(partial)
        try:
            return _appended(store, entry, partial, moved) or _wrong(entry, partial)
        except ConnectionError as error:
            raise DatasetError(
                f"{store.address(entry)}: the store does not answer ({error}). Check the network and AWS_ENDPOINT_URL; run again to go on."
            ) from error
        except (HTTPClientError, IncompleteReadError, ResponseStreamingError) as error:
            broken = 1 if _size(partial) > before else broken + 1
            if broken == PATIENCE:
                raise DatasetError(
                    f"{store.address(entry)}: the connection broke {PATIENCE} times in a row ({error}). Run again to go on from here."
                ) from error
            time.sleep(PAUSE * 2**broken)
        except ClientError as error:
            return _refused(store, entry, error)
        except BotoCoreError as error:
            raise DatasetError(f"{store.address(entry)}: boto3 cannot ask for it ({error}). Correct the AWS configuration.") from error
        except OSError:  # the disk is full
            partial.unlink(missing_ok=True)
            raise


def _appended(store: Store, entry: Entry, partial: Path, moved: Moved) -> str | None:
    """Bring what `partial` lacks; what is wrong in words when the object has another size."""
    have = _size(partial)
    if have and have >= entry.bytes:
        return None
    wanted = {"Range": f"bytes={have}-"} if have else {}
    answer = store.client.get_object(Bucket=store.bucket, Key=store.prefix + entry.path, **wanted)
    start = have if answer["ResponseMetadata"]["HTTPStatusCode"] == 206 else 0
    with closing(answer["Body"]) as body:
        size = start + answer["ContentLength"]
        if size != entry.bytes:
            return f"has {size:,} bytes, the manifest says {entry.bytes:,}"
        moved(start - have)
        with partial.open("ab" if start else "wb") as file:
            for chunk in body.iter_chunks(CHUNK):
                file.write(chunk)
                moved(len(chunk))
    return None


def _wrong(entry: Entry, partial: Path) -> str | None:
    sha256 = hashed(partial)
    if isinstance(sha256, OSError):
        raise sha256
    return faults_of([entry], {entry.path: Entry(entry.path, _size(partial), sha256)}).get(entry.path)


def _refused(store: Store, entry: Entry, error: Any) -> str:
    """What is wrong with one object; raises DatasetError where the others would fare no better."""
    code, status = error.response["Error"].get("Code", ""), error.response["ResponseMetadata"].get("HTTPStatusCode")
    if code == "NoSuchBucket":
        raise DatasetError(f"s3://{store.bucket}: no such bucket. Correct fetch.path, or AWS_ENDPOINT_URL.") from error
    if status == 404:
        return "no such object"
    if status == 416:
        return "ends before what an earlier run brought"
    if status in (401, 403) or "Token" in code:
        who = "the credentials that boto3 found do not permit it" if store.signed else "boto3 found no credentials"
        raise DatasetError(
            f"{store.address(entry)}: no permission to read ({code}): {who}. "
            "Set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or have s3:GetObject granted; a missing object may look the same."
        ) from error
    raise DatasetError(f"{store.address(entry)}: the store refuses ({error}). Run again to go on.") from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
