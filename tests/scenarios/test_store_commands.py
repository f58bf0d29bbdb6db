"""`oca store verify` and `oca index rebuild` as an operator uses them."""

import json
import os
import shutil

from tests.doubles.appliance import BLOCK, command

FILM = 2 * BLOCK + 4097


def test_verify_tells_what_is_wrong_while_the_appliance_serves(make_appliance, origin, path):
    one = make_appliance().start(store={"probation": 0})
    content = origin.put(path, FILM)
    assert one.get(path).body == content
    one.wait_stored(path)
    code, output, errors = command(one, "store", "verify")
    assert code == 0, errors
    assert "1 extents looked at, 3 blocks" in output
    (file,) = one.extent_files()
    with file.open("r+b") as disk:
        disk.seek(BLOCK + 77)
        disk.write(b"\0" if content[BLOCK + 77] else b"\1")
        os.fsync(disk.fileno())
        # What lies in memory is taken for compared, rightly: it is the disk that rots.
        os.posix_fadvise(disk.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    code, output, _ = command(one, "store", "verify", "--json", "--device", str(one.devices[0]) + "/")
    assert code == 1
    (finding,) = json.loads(output)["findings"]
    assert (finding["flaw"], finding["path"]) == ("rotten", path)
    assert "block 1 " in finding["sentence"]
    code, output, _ = command(one, "store", "verify", "--quick")
    assert code == 0, "a quick look reads no content"
    assert one.get(path).body == content, "and a viewer gets the right bytes all the same"


def test_a_lost_index_is_made_anew_from_the_devices_alone(make_appliance, origin, path):
    one = make_appliance().start(store={"probation": 0})
    films = {f"{path}/{number}": origin.put(f"{path}/{number}", FILM) for number in range(4)}
    for name, content in films.items():
        assert one.get(name).body == content
        one.wait_stored(name)
    code, output, errors = command(one, "index", "rebuild")
    assert (code, output) == (1, ""), "not while the appliance runs"
    assert errors.startswith("oca: ")
    one.stop()
    shutil.rmtree(one.state_dir / "index")
    code, output, errors = command(one, "index", "rebuild")
    assert code == 0, errors
    assert output.startswith("4 extents")
    asked = len(origin.asked)
    one.start()
    for name, content in films.items():
        answer = one.get(name)
        assert answer.body == content
        assert answer.is_hit
    assert len(origin.asked) == asked
    code, _, errors = command(one, "store", "verify")
    assert code == 0, errors
