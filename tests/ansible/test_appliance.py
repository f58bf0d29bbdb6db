"""From bare Debian to an appliance that serves, over to another version and back, with viewers there all the time."""

import json

import pytest

from tests.ansible.conftest import NEW, OLD, Viewers, get, write_inventory
from tests.doubles.appliance import BLOCK

pytestmark = [pytest.mark.racking, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def box(shelf):
    with shelf.box("lis-1") as box:
        # Disks are tested by themselves (test_disks.py).
        box.run("mkdir -p /srv/oca/d0 && chmod 777 /srv/oca/d0")
        yield box


@pytest.fixture(scope="module")
def inventory(shelf, box, origin, dists):
    return write_inventory(
        shelf.folder / "appliance.yml",
        {"appliances": {box: {}}},
        oca_origin_url="http://10.77.1.1:8000",
        oca_workers=2,
        oca_devices=[{"path": "/srv/oca/d0", "tier": "nvme", "capacity": "1 GiB"}],
        software_dist=str(dists[OLD]),
        software_version=OLD,
    )


@pytest.fixture(scope="module")
def first(shelf, box, inventory):
    """What the play said of a bare Debian."""
    return shelf.play("appliance.yml", inventory=inventory).assert_good()


@pytest.fixture
def films(origin, request):
    paths = [f"/{request.node.name}/{size}" for size in (1000, 300_000, BLOCK + 10)]
    return {path: origin.put(path, int(path.rpartition("/")[2])) for path in paths}


def test_one_play_makes_an_appliance_of_a_bare_debian(shelf, box, first, films):
    assert first.changed()
    for path, content in films.items():
        assert get(shelf, box, path) == (200, content)
    assert box.run("systemctl is-active oca.service oca.socket").split() == ["active", "active"]
    assert box.run("systemctl is-enabled oca.service oca.socket").split() == ["enabled", "enabled"]


def test_a_second_run_changes_nothing_and_the_check_mode_knows_that(shelf, box, first, inventory):
    assert shelf.play("appliance.yml", inventory=inventory).assert_good().changed() == []
    assert shelf.play("appliance.yml", "--check", "--diff", inventory=inventory).assert_good().changed() == []


def test_on_a_bare_debian_the_check_mode_says_what_it_would_do_and_does_nothing(shelf, dists, origin):
    with shelf.box("bare") as bare:
        inventory = write_inventory(
            shelf.folder / "bare.yml",
            {"appliances": {bare: {}}},
            oca_origin_url="http://10.77.1.1:8000",
            oca_devices=[{"path": "/srv/oca/d0", "tier": "nvme", "capacity": "1 GiB"}],
            software_dist=str(dists[OLD]),
            software_version=OLD,
        )
        played = shelf.play("appliance.yml", "--check", "--diff", inventory=inventory).assert_good()
        assert any("Write the settings" in task for task in played.changed())
        assert "not there" in bare.run("ls /opt/oca /etc/oca 2>/dev/null || echo not there")


def test_other_settings_are_taken_up_without_a_cut(shelf, box, first, inventory, films):
    pid = box.run("systemctl show --property MainPID oca.service")
    with Viewers(shelf, box, films) as viewers:
        more = {"oca_settings": {"http": {"max_ranges": 2}}}
        played = shelf.play("appliance.yml", inventory=inventory, **more).assert_good()
        viewers.wait_for(50)
    assert viewers.faults == []
    assert [task.partition(" : ")[2] for task in played.changed()] == ["Write the settings", "Reload the appliance"]
    assert box.run("systemctl show --property MainPID oca.service") == pid
    assert get(shelf, box, min(films), Range="bytes=0-1,5-6,9-9")[0] == 416
    shelf.play("appliance.yml", inventory=inventory).assert_good()


def test_settings_that_can_not_be_used_stop_the_play_and_the_old_ones_stay(shelf, box, first, inventory, films):
    before = box.run("cat /etc/oca/oca.toml")
    played = shelf.play("appliance.yml", inventory=inventory, oca_settings={"http": {"max_range": 2}})
    assert played.returncode != 0
    assert "unknown key 'max_range'" in "".join(played.failures())
    assert box.run("cat /etc/oca/oca.toml") == before
    assert get(shelf, box, min(films))[0] == 200


def test_a_variable_of_the_wrong_kind_is_named(shelf, box, first, inventory):
    played = shelf.play("appliance.yml", inventory=inventory, oca_devices=[{"path": "/srv/oca/d0", "tier": "tape"}])
    assert played.returncode != 0
    told = "".join(played.failures())
    assert "tape" in told or "capacity" in told


def test_an_upgrade_and_the_way_back_are_noticed_by_no_viewer(shelf, box, first, inventory, dists, films, origin):
    pid = box.run("systemctl show --property MainPID oca.service")
    version = {"software_version": NEW, "software_dist": str(dists[NEW])}
    with Viewers(shelf, box, films) as viewers:
        shelf.play("upgrade.yml", inventory=inventory, **version).assert_good()
        assert box.run("/opt/oca/switch").splitlines() == [f"{OLD}  ran before", f"{NEW}  runs"]
        # The processes are the new version's, the supervisor too, and it is the same process.
        assert set(box.run("pgrep -u oca -a python3 | awk '{print $2}'").split()) == {f"/opt/oca/{NEW}/bin/python3"}
        assert box.run("systemctl show --property MainPID oca.service") == pid
        viewers.wait_for(50)
        shelf.play("rollback.yml", inventory=inventory).assert_good()
        assert box.run("readlink /opt/oca/current").strip() == OLD
        viewers.wait_for(50)
    assert (viewers.faults, viewers.retries) == ([], 0)
    # Once more, and then everything is as it should be.
    shelf.play("upgrade.yml", inventory=inventory, **version).assert_good()
    assert shelf.play("upgrade.yml", inventory=inventory, **version).assert_good().changed() == []
    assert shelf.play("appliance.yml", inventory=inventory, **version).assert_good().changed() == []
    box.run(f"/opt/oca/switch {OLD}")


@pytest.mark.parametrize(
    "command",
    ["systemctl restart oca.service", "kill -9 $(systemctl show --value --property MainPID oca.service)"],
    ids=["restart", "death of the supervisor"],
)
def test_nobody_is_refused_by(shelf, box, first, films, command):
    with Viewers(shelf, box, films) as viewers:
        before = box.run("systemctl show --value --property MainPID oca.service")
        box.run(command)
        viewers.wait_for(50)
        box.wait_for(f"test $(systemctl show --value --property MainPID oca.service) != {before.strip()}")
        viewers.wait_for(50)
    # Who was in the middle of an answer when all was killed is cut.
    assert [fault for fault in viewers.faults if "restart" in command or "Refused" in fault] == []
    box.wait_for("systemctl is-active oca.service")


def test_the_journal_has_fields(box, first):
    lines = box.run("journalctl -u oca.service -o json EXTRA_ROLE=keeper -n 1").splitlines()
    entry = json.loads(lines[-1])
    assert entry["PRIORITY"] == "6"
    assert entry["CODE_FILE"].endswith(".py")
    assert entry["LOGGER_NAME"].startswith("oca.")


def test_on_the_box_systemd_has_nothing_against_the_units(box, first):
    units = box.run("cd /etc/systemd/system && ls oca*.service oca*.socket oca*.timer").split()
    assert len(units) >= 11
    verdict = box.ssh(f"systemd-analyze verify {' '.join(units)}", check=False)
    assert (verdict.returncode, verdict.stderr) == (0, "")


def test_an_appliance_is_taken_out_of_service_only_by_its_name(shelf, box, first, inventory, films):
    played = shelf.play("decommission.yml", inventory=inventory)
    assert played.returncode != 0
    assert "left alone" in "".join(played.failures())
    assert get(shelf, box, min(films))[0] == 200
    shelf.play("decommission.yml", inventory=inventory, decommission="lis-1", decommission_wipe=True).assert_good()
    with pytest.raises(ConnectionRefusedError):
        get(shelf, box, min(films))
    assert box.run("ls /srv/oca/d0; ls -d /etc/oca /var/lib/oca 2>/dev/null || echo gone").strip() == "gone"
