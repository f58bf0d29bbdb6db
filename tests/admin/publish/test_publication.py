"""A film, from a file to a bucket that an appliance can serve."""

import base64
import hashlib
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from xml.etree import ElementTree as ET

import msgspec
import pytest

from admin.bucket import Bucket
from admin.errors import InputError, StoreRefused, TitleTaken, UsageError
from admin.progress import Lines
from admin.publish.boxes import segment_timing
from admin.publish.publication import claim_numbers, publish
from wire.catalog import NUMBERS_PATH, Availability, Kind, read_numbers, title_path
from wire.codec import encode

TITLE = "metropolis"
FOLDER = f"/titles/{TITLE}"


def films_of(store) -> list[str]:
    """What players and planners could see."""
    return [path for path in store.paths() if path.startswith(("/titles/", "/catalogue/titles/"))]


def decoded(ffmpeg, manifest, streams="0") -> dict[str, int]:
    """How many frames ffmpeg decodes of each of these streams (all), refusing any damage."""
    command = [
        ffmpeg.path,
        "-nostdin",
        "-loglevel",
        "error",
        "-xerror",
        "-allowed_extensions",
        "ALL",
        "-i",
        str(manifest),
    ]
    counted = subprocess.run(
        [*command, "-map", streams, "-f", "framecrc", "-"], capture_output=True, text=True, check=True, timeout=60
    )
    assert not counted.stderr
    frames: dict[str, int] = {}
    for line in counted.stdout.splitlines():
        if not line.startswith("#"):
            stream = line.partition(",")[0].strip()
            frames[stream] = frames.get(stream, 0) + 1
    return frames


@pytest.fixture(scope="module")
def downloaded(published, tmp_path_factory):
    return published.download(tmp_path_factory.mktemp("downloaded"))


@pytest.mark.parametrize("manifest", ["master.m3u8", "manifest.mpd"])
def test_every_picture_and_sound_of_the_film_is_played_from_either_manifest(ffmpeg, downloaded, manifest):
    frames = sorted(decoded(ffmpeg, downloaded / FOLDER[1:] / manifest).values())
    # 9 s: 270 pictures in both sizes, and 48,000 samples a second in frames of 1024.
    assert frames[:2] == [270, 270]
    assert 420 <= frames[2] <= 425


def test_segments_begin_at_the_same_moments_in_every_size(published):
    title = published.title(TITLE)
    starts = {
        rendition.name: [
            segment_timing(published.body(each.path)).start for each in rendition.objects if each.path.endswith(".m4s")
        ]
        for rendition in title.renditions
        if rendition.kind == Kind.VIDEO
    }
    assert starts["144p"] == starts["240p"] == [0, 120120, 240240]


def test_every_segment_begins_with_a_keyframe_and_holds_no_other(ffmpeg, downloaded):
    for playlist in downloaded.glob("titles/*/*p.*/index.m3u8"):
        shown = subprocess.run(
            [
                ffmpeg.path,
                "-nostdin",
                "-skip_frame",
                "nokey",
                "-i",
                str(playlist),
                "-vf",
                "showinfo",
                "-f",
                "null",
                "-",
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        keyframes = re.findall(r"n: +\d+ pts: *(\d+) ", shown.stderr)
        assert keyframes == ["0", "120120", "240240"]


def test_each_object_has_its_type_its_lifetime_and_its_checksum(published):
    types = {".m3u8": "application/vnd.apple.mpegurl", ".mpd": "application/dash+xml", ".json": "application/json"}
    for path in films_of(published):
        head, body = published.head(path), published.body(path)
        suffix = "." + path.rpartition(".")[2]
        media = "audio/mp4" if "/audio." in path else "video/mp4"
        assert head["ContentType"] == types.get(suffix, media)
        digest = hashlib.sha256(body)
        assert base64.b64decode(head["ChecksumSHA256"]) == digest.digest()
        assert head["Metadata"]["sha256"] == digest.hexdigest()
        if path.startswith("/catalogue/"):
            assert head["CacheControl"] == "no-cache"
        elif path.count("/") == 3:
            assert head["CacheControl"].startswith("public, max-age=5,")
        else:
            assert head["CacheControl"] == "public, max-age=31536000, immutable"


def test_the_catalogue_lists_exactly_what_is_there(published):
    title = published.title(TITLE)
    listed = [*title.manifests, *(each for rendition in title.renditions for each in rendition.objects)]
    assert sorted(each.path for each in listed) == [path for path in published.paths() if path.startswith("/titles/")]
    for each in listed:
        body = published.body(each.path)
        assert (each.size_bytes, each.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert [(rendition.number, rendition.name) for rendition in title.renditions] == [
        (0, "audio"),
        (1, "144p"),
        (2, "240p"),
    ]
    assert title.renditions[0].language == "deu"
    assert title.duration == pytest.approx(9.01, abs=0.05)


def test_what_the_manifests_promise_is_what_the_segments_are(published):
    master = published.body(f"{FOLDER}/master.m3u8").decode()
    promised = {int(height): int(bps) for bps, height in re.findall(r"BANDWIDTH=(\d+),A.*RESOLUTION=\d+x(\d+)", master)}
    title = published.title(TITLE)
    sound = next(rendition for rendition in title.renditions if rendition.kind == Kind.AUDIO)
    for rendition in title.renditions:
        segments = [each for each in rendition.objects if each.path.endswith(".m4s")]
        rates = [each.size_bytes * 8 / segment_timing(published.body(each.path)).seconds for each in segments]
        assert max(rates[:-1]) <= rendition.bandwidth_bps
        if rendition.height:
            assert promised[rendition.height] == rendition.bandwidth_bps + sound.bandwidth_bps
    document = ET.fromstring(published.body(f"{FOLDER}/manifest.mpd"))
    told = document.findall(".//{*}Representation")
    assert {each.get("id") for each in told} == {each.objects[0].path.split("/")[3] for each in title.renditions}


def test_the_catalogue_is_written_last_and_the_manifests_just_before(watched, order):
    publish(order, watched.store.open(), Lines())
    written = [path for path in watched.puts if not path.endswith((NUMBERS_PATH, "-probe"))]
    assert written[-3:] == [f"{FOLDER}/manifest.mpd", f"{FOLDER}/master.m3u8", title_path(TITLE)]
    assert all(path.count("/") == 4 for path in written[:-3])


@pytest.mark.parametrize("refused", ["seg-00002.m4s", "manifest.mpd", "rendition-numbers.json"])
def test_when_the_store_refuses_one_write_nobody_sees_the_film(watched, order, refused):
    watched.on_put = lambda path: 403 if path.endswith(refused) else None
    with pytest.raises(StoreRefused, match="403"):
        publish(order, watched.store.open(), Lines())
    visible = [path for path in films_of(watched.store) if path.count("/") == 3]
    assert visible == []


def test_a_run_that_failed_is_continued_without_doing_anything_twice(watched, order, capsys):
    watched.on_put = lambda path: 403 if path.endswith("master.m3u8") else None
    with pytest.raises(StoreRefused):
        publish(order, watched.store.open(), Lines())
    watched.on_put = lambda _path: None
    capsys.readouterr()
    publish(order, watched.store.open(), Lines())
    said = capsys.readouterr().out
    assert said.count("made before") == 3
    segments = [path for path in watched.puts if path.endswith(".m4s")]
    assert len(segments) == len(set(segments))
    assert [rendition.number for rendition in watched.store.title(TITLE).renditions] == [0, 1, 2]
    assert read_numbers(watched.store.body(NUMBERS_PATH)).claims == {}


def test_a_run_that_died_after_its_last_write_but_one_is_completed(watched, order):
    seen = []

    def refuse_to_settle(path):
        seen.append(path)
        return 403 if path == NUMBERS_PATH and title_path(TITLE) in seen else None

    watched.on_put = refuse_to_settle
    with pytest.raises(StoreRefused):
        publish(order, watched.store.open(), Lines())
    watched.on_put = lambda _path: None
    publish(order, watched.store.open(), Lines())
    assert read_numbers(watched.store.body(NUMBERS_PATH)).claims == {}
    assert not order.work_dir.exists()


def test_a_title_that_is_published_is_not_overwritten(published, order, short, other_clip):
    before = {path: published.head(path)["ETag"] for path in published.paths()}
    for video in (short, other_clip):
        with pytest.raises(TitleTaken, match="--replace"):
            publish(replace(order, video=video), published.open(), Lines())
    assert {path: published.head(path)["ETag"] for path in published.paths()} == before


def test_a_film_replaced_by_itself_keeps_its_files_and_numbers(watched, order, replacing):
    first = publish(order, watched.store.open(), Lines())
    del watched.puts[:]
    second = publish(replacing, watched.store.open(), Lines())
    assert second.renditions == first.renditions
    assert not [path for path in watched.puts if path.endswith(".m4s")]


def test_a_film_replaced_by_another_gets_new_numbers_and_the_old_segments_stay(store, order, replacing, other_clip):
    first = publish(order, store.open(), Lines())
    second = publish(replace(replacing, video=other_clip), store.open(), Lines())
    assert [rendition.number for rendition in second.renditions] == [3]
    kept = set(store.paths())
    assert {each.path for rendition in first.renditions for each in rendition.objects} <= kept
    assert store.title(TITLE) == second
    master = store.body(f"{FOLDER}/master.m3u8").decode()
    assert second.renditions[0].objects[0].path.split("/")[3] in master


def test_a_film_that_is_replaced_may_be_shown_where_it_might_before(store, order, replacing):
    first = publish(order, store.open(), Lines())
    limited = msgspec.structs.replace(first, availability=Availability(only=("PT",)))
    key = f"{store.prefix}{title_path(TITLE)}"
    store.client.put_object(Bucket=store.bucket, Key=key, Body=encode(limited))
    publish(replacing, store.open(), Lines())
    assert store.title(TITLE).availability == Availability(only=("PT",))


def test_of_two_runs_for_one_title_the_second_to_finish_stops(watched, order, other_clip):
    other = replace(order, video=other_clip, heights=(144,))
    publishing = []

    def publish_the_other_first(path):
        if path.endswith("index.m3u8") and not publishing:
            publishing.append(path)
            publish(other, watched.store.open(), Lines())

    watched.on_put = publish_the_other_first
    with pytest.raises(TitleTaken, match="another run meanwhile"):
        publish(order, watched.store.open(), Lines())
    title = watched.store.title(TITLE)
    assert [rendition.name for rendition in title.renditions] == ["120p"]
    for manifest in title.manifests:
        assert hashlib.sha256(watched.store.body(manifest.path)).hexdigest() == manifest.sha256


def test_however_many_publishers_claim_at_once_each_number_is_given_once(store):
    def claim(publisher: int) -> list[int]:
        folders = tuple(f"/titles/t-{publisher}/{size}p.x" for size in range(3))
        return list(claim_numbers(store.open(), folders, {}).values())

    with ThreadPoolExecutor(6) as pool:
        given = [number for numbers in pool.map(claim, range(6)) for number in numbers]
    assert sorted(given) == list(range(18))
    assert read_numbers(store.body(NUMBERS_PATH)).next == 18


def test_a_download_that_broke_off_is_found_out_and_leaves_nothing(store, order, clip, tmp_path):
    body = clip.read_bytes()
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(body[: len(body) // 2])
    with pytest.raises(InputError, match=r"breaks off at [\d.]+ s of 9\.0 s"):
        publish(replace(order, video=broken), store.open(), Lines())
    assert films_of(store) == []
    assert not order.work_dir.exists()


# Asking it anything would fail otherwise than the tests expect.
NOWHERE = "http://127.0.0.1:1"


@pytest.mark.parametrize("title", ["", "Metropolis", "../etc", "a/b", "a" * 65, "a--b", "é"])
def test_a_title_that_is_no_id_is_refused_before_anything_is_asked(order, title):
    with pytest.raises(UsageError, match="a-z, 0-9 and single hyphens"):
        publish(replace(order, title=title), Bucket("s3://films", NOWHERE), Lines())


@pytest.mark.parametrize("heights", [(), (0,), (-240,), (240, 241)])
def test_sizes_we_have_no_rate_for_are_refused(order, heights):
    with pytest.raises(UsageError, match="144, 240, 360"):
        publish(replace(order, heights=heights), Bucket("s3://films", NOWHERE), Lines())


@pytest.mark.parametrize(
    "urls",
    [
        {"steering_url": "steer.example"},
        {"steering_url": "https://steer.example/v1"},
        {"steering_url": 'https://steer.example"'},
        {"steering_url": "https://steer.example", "films_url": "ftp://films.example"},
        {"films_url": "https://films.example"},
    ],
)
def test_addresses_that_players_could_not_use_are_refused(order, urls):
    with pytest.raises(UsageError, match=r"can't be used|give both"):
        publish(replace(order, **urls), Bucket("s3://films", NOWHERE), Lines())


def test_a_film_that_is_steered_says_so_in_both_manifests(order, store):
    publish(replace(order, steering_url="https://s.example", films_url="https://f.example"), store.open(), Lines())
    asked = b"https://s.example/v1/content-steering?path=/titles/metropolis/"
    assert asked + b"master.m3u8" in store.body("/titles/metropolis/master.m3u8")
    assert asked + b"manifest.mpd" in store.body("/titles/metropolis/manifest.mpd")


ODD_FILMS = {
    "one_picture": ("testsrc2=size=64x48:rate=25:duration=0.04",),
    "odd_sides": ("testsrc2=size=161x121:rate=10:duration=5",),
    "two_pixels": ("color=size=2x2:rate=10:duration=5",),
    "slow": ("testsrc2=size=64x48:rate=1:duration=10",),
    "fast": ("testsrc2=size=64x48:rate=120:duration=5",),
    "varying_rate": ("testsrc2=size=64x48:rate=50:duration=9,select=not(mod(n\\,7))+gt(t\\,6)", "-fps_mode", "vfr"),
    "starting_late": ("testsrc2=size=64x48:rate=10:duration=5,setpts=PTS+7/TB",),
    "interlaced": ("testsrc2=size=64x48:rate=50:duration=5,interlace", "-flags", "+ilme+ildct"),
}


@pytest.mark.parametrize("name", ODD_FILMS)
def test_odd_films_are_published_whole(store, order, make, ffmpeg, tmp_path, name):
    picture, *options = ODD_FILMS[name]
    path = make("-f", "lavfi", "-i", picture, *options, "-c:v", "mpeg4", "-q:v", "5", f"{name}.mkv")
    title = publish(replace(order, video=path, heights=(144,)), store.open(), Lines())
    (rendition,) = title.renditions
    frames = decoded(ffmpeg, store.download(tmp_path / "got") / FOLDER[1:] / "master.m3u8")
    numerator, _, denominator = rendition.frame_rate.partition("/")
    rate = int(numerator) / int(denominator or 1)
    assert rate <= 60
    # Each picture is one of a constant rate, from the first moment to the last.
    assert sum(frames.values()) == pytest.approx(rendition.duration * rate, abs=1)
    first = next(each.path for each in rendition.objects if each.path.endswith("seg-00001.m4s"))
    assert segment_timing(store.body(first)).start == 0


def test_sound_that_begins_late_stays_with_its_picture(store, order, make, clip):
    late = make(
        *(
            "-i",
            str(clip),
            "-itsoffset",
            "2.5",
            "-i",
            str(clip),
            "-map",
            "0:v",
            "-map",
            "1:a",
            "-c",
            "copy",
            "late-sound.mkv",
        ),
    )
    title = publish(replace(order, video=late, heights=(144,)), store.open(), Lines())
    sound = next(rendition for rendition in title.renditions if rendition.kind == Kind.AUDIO)
    first = next(each.path for each in sound.objects if each.path.endswith("seg-00001.m4s"))
    assert segment_timing(store.body(first)).start == 0
    assert sound.duration == pytest.approx(11.5, abs=0.1)
