"""Debian packages: versions beside each other, units, and a switch that comes with the package."""

import os
import subprocess

import pytest

from tests.ansible.conftest import NEW, OLD
from tests.doubles.racking import ROOT

pytestmark = [pytest.mark.racking, pytest.mark.timeout(900)]
PROGRAMS = ("oca", "oca-admin", "oca-fill", "oca-steering")


@pytest.fixture(scope="module")
def packages(dists):
    """By version, the two packages that `make deb` makes."""
    for version, folder in dists.items():
        if not list(folder.glob("*.deb")):
            environment = {**os.environ, "VERSION": version, "OUT": str(folder)}
            command = [ROOT / "systemd" / "debian" / "build"]
            done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=600)
            assert done.returncode == 0, done.stderr
    return {version: sorted(folder.glob("*.deb")) for version, folder in dists.items()}


@pytest.fixture(scope="module")
def box(shelf):
    with shelf.box("packaged") as box:
        box.run("apt-get install -y -qq python3.11 >/dev/null 2>&1 || true")
        yield box


def install(box, packages, version):
    for package in packages[version]:
        (box.root / "root" / package.name).write_bytes(package.read_bytes())
    return box.run(f"cd /root && dpkg -i {' '.join(package.name for package in packages[version])}")


def test_they_install_programs_and_units_that_nobody_has_started(box, packages):
    install(box, packages, OLD)
    for program in PROGRAMS:
        assert program in box.run(f"/opt/oca/current/bin/{program} --help")
    assert box.run("/opt/oca/switch").strip() == f"{OLD}  runs"
    assert box.run("id -u oca oca-steering oca-fill oca-admin").split()
    assert (
        box.ssh("systemctl is-enabled oca.service oca.socket oca-steering.service", check=False).stdout.split()
        == ["disabled"] * 3
    )
    verdict = box.ssh("systemd-analyze verify oca.service oca.socket oca-steering.service", check=False)
    assert (verdict.returncode, verdict.stderr) == (0, "")
    assert box.run("dpkg -V open-oca").strip() == ""


def test_a_newer_one_goes_over_and_the_way_back_is_one_command(box, packages):
    box.run("mkdir -p /srv/oca/d0 /etc/oca && chown oca /srv/oca/d0")
    settings = (
        '[appliance]\nid = "lis-1"\n[listen]\nhttp = "0.0.0.0:80"\nworkers = 1\n[origin]\nurl = "http://10.77.1.1:8000"\n'
        '[[device]]\npath = "/srv/oca/d0"\ntier = "nvme"\ncapacity = "1 GiB"\n'
    )
    (box.root / "etc/oca/oca.toml").write_text(settings)
    box.run("systemctl enable --now oca.socket oca.service")
    before = box.run("systemctl show --value --property MainPID oca.service")
    assert f"{NEW} runs; before it was {OLD}" in install(box, packages, NEW)
    assert box.run("systemctl show --value --property MainPID oca.service") == before
    assert f"/opt/oca/{NEW}/" in box.run("pgrep -u oca -a -f /opt/oca/")
    assert box.run("dpkg -l 'open-oca-*' | grep -c ^ii").strip() == "2"
    assert f"{OLD} runs" in box.run("/opt/oca/switch --back")
    assert f"/opt/oca/{OLD}/" in box.run("pgrep -u oca -a -f /opt/oca/")


def test_removed_it_leaves_what_it_does_not_own(box):
    box.run("dpkg -r open-oca")
    assert box.ssh("systemctl is-active oca.service", check=False).stdout.strip() != "active"
    assert box.run("cat /etc/oca/oca.toml").startswith("[appliance]")
    assert "current" not in box.run("ls /opt/oca")
