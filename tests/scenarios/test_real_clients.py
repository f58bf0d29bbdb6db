"""Programs that people use: curl resumes, ffmpeg seeks and decodes."""

import shutil
import subprocess

import imageio_ffmpeg
import pytest

from tests.doubles.appliance import BLOCK, PATIENCE

FFMPEG = shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()


def run(*command):
    return subprocess.run([*map(str, command)], capture_output=True, timeout=2 * PATIENCE, check=False)


@pytest.mark.parametrize("temperature", ["cold", "warm"])
def test_curl_resumes_a_broken_download(appliance, origin, path, tmp_path, temperature):
    content = origin.put(path, 2 * BLOCK + 99)
    if temperature == "warm":
        appliance.get(path)
        appliance.wait_stored(path)
    part = tmp_path / "film"
    for held in (0, 1, BLOCK + 7, len(content) - 1):
        part.write_bytes(content[:held])
        ended = run("curl", "--fail", "--silent", "--show-error", "-C", "-", "-o", part, appliance.url + path)
        assert (ended.returncode, ended.stderr) == (0, b"")
        assert part.read_bytes() == content


def test_curl_gets_many_objects_over_one_connection(appliance, origin, path, tmp_path):
    urls = []
    for number in range(20):
        origin.put(f"{path}/{number}", 1000 + number)
        urls.append(f"{appliance.url}{path}/{number}")
    before = appliance.metric("oca_connections_total")
    ended = run("curl", "--fail", "--silent", "--remote-name-all", "--output-dir", tmp_path, *urls)
    assert ended.returncode == 0
    for number in range(20):
        assert (tmp_path / str(number)).read_bytes() == origin.content(f"{path}/{number}")
    assert appliance.metric("oca_connections_total") == before + 1


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Sixty seconds of a small film, its index at the end as cameras write it: a player has to seek to begin."""
    file = tmp_path_factory.mktemp("clip") / "clip.mp4"
    ended = run(
        *(FFMPEG, "-v", "error", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=10:duration=60"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-g", "20", "-threads", "1", "-pix_fmt", "yuv420p", file),
    )
    assert ended.returncode == 0, ended.stderr
    return file.read_bytes()


def decoded(url, *options):
    """The checksums of the frames that ffmpeg decodes."""
    ended = run(FFMPEG, "-v", "error", *options, "-i", url, "-frames:v", "15", "-f", "framemd5", "-")
    assert (ended.returncode, ended.stderr) == (0, b"")
    frames = [line for line in ended.stdout.decode().splitlines() if not line.startswith("#")]
    assert len(frames) == 15
    return frames


def test_ffmpeg_seeks_and_decodes_the_same_frames_as_from_the_file(appliance, origin, path, clip, tmp_path):
    file = tmp_path / "clip.mp4"
    file.write_bytes(clip)
    origin.put(path, clip, content_type="video/mp4")
    url = appliance.url + path
    for position in ("45", "10", "57"):
        assert decoded(url, "-ss", position) == decoded(file, "-ss", position)
    assert decoded(url) == decoded(file)
    assert len(set(origin.ranges(path))) == len(origin.ranges(path))
