"""The test content that a box fills and gives back: the same bytes everywhere, known by their sum."""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Final

from admin.bucket import Bucket, Upload
from admin.errors import MachineError, UsageError

VERSION: Final = 1
"""Other bytes get another number: what was stored under one never changes."""
PATH: Final = f"/turn-up/{VERSION}.bin"
SIZE_BYTES: Final = 32 * 1024 * 1024
"""Eight blocks of an appliance: ranges can cross from one to the next."""
SHA256: Final = "aa268e28a5c35581cfaebe55c1082db0e0459a62538d3ea847783f1c51a64c5d"
_TYPE: Final = "application/octet-stream"
_CACHING: Final = "public, max-age=31536000, immutable"


def content() -> bytes:
    """All of it: SHAKE-256 (FIPS 202) of its name, so that whoever doubts can make it with one line of his own."""
    return hashlib.shake_256(f"open-oca turn-up {VERSION}".encode()).digest(SIZE_BYTES)


def put(where: str, endpoint_url: str | None) -> str:
    """Write it below s3://bucket/prefix, or below a folder that an HTTP origin serves; says where it lies now.

    What lies there already with the same sum stays. Raises UsageError, StoreError, and MachineError for a folder that
    can't be written.
    """
    if where.startswith("s3://"):
        bucket = Bucket(where, endpoint_url)
        bucket.require_usable()
        if bucket.sha256(PATH) != SHA256:
            bucket.put(Upload(PATH, content(), _TYPE, _CACHING))
        return f"{bucket.url}{PATH}"
    if "://" in where or not Path(where).is_dir():
        raise UsageError(
            f"--to {where!r} is no place for content; allowed: s3://bucket/prefix, or a folder that is there"
        )
    file = Path(where) / PATH.lstrip("/")
    try:
        if not file.is_file() or _sum_of(file) != SHA256:
            file.parent.mkdir(exist_ok=True)
            _replace(file, content())
    except OSError as error:
        raise MachineError(f"{file}: can't be written: {error.strerror or error}") from error
    return str(file)


def _sum_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _replace(file: Path, body: bytes) -> None:
    """Whole or not at all: an origin may be asked for it meanwhile."""
    fd, name = tempfile.mkstemp(dir=file.parent)
    try:
        with os.fdopen(fd, "wb") as opened:
            opened.write(body)
            # As a web server of another user can read it.
            os.fchmod(opened.fileno(), 0o644)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
