"""What was published: looked at, withdrawn and restored, and licensed for countries.

All is in the title's document in the catalogue, which is changed by conditional writes: of two that change it at once,
both changes count, and a film that is published anew meanwhile is not written over.
"""

import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import msgspec

from admin.bucket import UPLOADS_AT_ONCE, Bucket, Upload
from admin.errors import ConditionFailed, StoreRefused, TitleTaken, UsageError
from admin.progress import Watcher
from wire.catalog import TITLE_ID_RULE, Availability, CatalogObject, Title, is_title_id, read_title, title_path
from wire.codec import WireError, encode

LONGEST_REASON: Final = 200
_FOLDER: Final = "/catalogue/titles"
_JSON: Final = "application/json"
_NEVER: Final = "no-cache"
# Operators are few: who meets another one again and again is in a loop.
_ATTEMPTS: Final = 10


@dataclass(frozen=True)
class Found:
    """All titles that could be read, by id, and of the others why not."""

    titles: dict[str, Title]
    unreadable: dict[str, str]


def all_titles(bucket: Bucket, watcher: Watcher) -> Found:
    """Everything in the catalogue. Raises StoreError if it can't be listed."""
    paths = [path for path in sorted(bucket.sizes(_FOLDER)) if path.endswith(".json")]
    titles: dict[str, Title] = {}
    unreadable: dict[str, str] = {}

    def read(path: str) -> tuple[str, Title | None, str]:
        name = path.rpartition("/")[2].removesuffix(".json")
        try:
            stored = bucket.read(path)
            return name, read_title(stored.body) if stored else None, ""
        except WireError as error:
            return name, None, str(error)

    with watcher.step("catalogue", len(paths)) as step, ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
        for done, (name, title, why) in enumerate(pool.map(read, paths), start=1):
            if title:
                titles[name] = title
            elif why:
                unreadable[name] = why
            step.reach(done)
        step.note(f"{len(titles)} titles")
    return Found(titles, unreadable)


def one_title(bucket: Bucket, name: str) -> Title:
    """This title. Raises UsageError if there is none of this id, StoreRefused if its document can't be read."""
    return _document(bucket, name)[0]


def withdraw(bucket: Bucket, name: str, reason: str | None) -> tuple[Title, bool]:
    """From now on nobody begins to play it. The title as it is now, and whether that is new."""
    if reason is not None and not 0 < len(reason) <= LONGEST_REASON:
        raise UsageError(f"the reason has {len(reason)} letters; allowed: 1 to {LONGEST_REASON}")

    def change(title: Title) -> Title:
        if title.withdrawn_at is not None and reason in (None, title.withdrawal_reason):
            return title
        now = dt.datetime.now(dt.UTC).replace(microsecond=0)
        return msgspec.structs.replace(title, withdrawn_at=title.withdrawn_at or now, withdrawal_reason=reason)

    return _changed(bucket, name, change)


def restore(bucket: Bucket, name: str) -> tuple[Title, bool]:
    """It may be played again. As `withdraw`."""
    return _changed(
        bucket, name, lambda title: msgspec.structs.replace(title, withdrawn_at=None, withdrawal_reason=None)
    )


def license_title(bucket: Bucket, name: str, availability: Availability) -> tuple[Title, bool]:
    """It may be shown there. As `withdraw`."""
    return _changed(bucket, name, lambda title: msgspec.structs.replace(title, availability=availability))


def damages(bucket: Bucket, title: Title, watcher: Watcher) -> list[str]:
    """What of this title is not in the bucket as the catalogue has it, in a sentence each."""
    objects = [*title.manifests, *(item for rendition in title.renditions for item in rendition.objects)]
    with watcher.step("verify", len(objects)) as step, ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
        found = []
        folders = {item.path.rpartition("/")[0] for item in objects}
        sizes = {path: size for some in pool.map(bucket.sizes, sorted(folders)) for path, size in some.items()}
        for done, damage in enumerate(pool.map(lambda item: _damage(bucket, item, sizes), objects), start=1):
            if damage:
                found.append(damage)
            step.reach(done)
        step.note(f"{len(objects)} objects, {len(found)} of them not as they should be")
    return found


def _damage(bucket: Bucket, item: CatalogObject, sizes: dict[str, int]) -> str | None:
    size = sizes.get(item.path)
    if size is None:
        return f"{item.path} is missing"
    if size != item.size_bytes:
        return f"{item.path} has {size} bytes, not {item.size_bytes}"
    checksum = bucket.sha256(item.path)
    return None if checksum == item.sha256 else f"{item.path} has the checksum {checksum}, not {item.sha256}"


def _document(bucket: Bucket, name: str) -> tuple[Title, str]:
    if not is_title_id(name):
        raise UsageError(f"title {name!r} can't be one; allowed: {TITLE_ID_RULE}")
    stored = bucket.read(title_path(name))
    if stored is None:
        raise UsageError(f"there is no title {name} at {bucket.url}; oca-admin titles list says which there are")
    try:
        return read_title(stored.body), stored.etag
    except WireError as error:
        raise StoreRefused(f"{bucket.url}{title_path(name)}: {error}") from error


def _changed(bucket: Bucket, name: str, change: Callable[[Title], Title]) -> tuple[Title, bool]:
    for _ in range(_ATTEMPTS):
        title, etag = _document(bucket, name)
        changed = change(title)
        if changed == title:
            return title, False
        try:
            bucket.replace(Upload(title_path(name), encode(changed), _JSON, _NEVER), etag)
        except ConditionFailed:
            continue
        return changed, True
    raise TitleTaken(f"{name} was changed by others {_ATTEMPTS} times meanwhile; try again")
