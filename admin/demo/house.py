"""All that runs in the demo: the parent, four appliances and steering; and what can be done to it."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from admin.console.accounts import hashed
from admin.demo.login import LogIn, write_signing_key
from admin.demo.night import Night
from admin.demo.parts import Origin, Part, free_ports
from admin.demo.settings import HOST, appliance_settings, console_settings, steering_settings
from admin.demo.town import BOXES, PARENT, fleet, write_cities
from admin.errors import UsageError


class House:
    """Made by `furnished`. Everything runs on loopback."""

    def __init__(
        self,
        steering: Part,
        appliances: Mapping[str, Part],
        urls: Mapping[str, str],
        public: int,
        login: LogIn,
        night: Night,
        console: Part,
        password: str,
    ) -> None:
        """`public` is the port of steering for players; `urls` are where players reach appliances; `password` is of the
        console's account noc.
        """
        self.steering = steering
        self.appliances = appliances
        self.urls = urls
        self.public_url = f"http://{HOST}:{public}"
        self.admin_url = f"http://{HOST}:{steering.control}"
        self.login = login
        self.night = night
        self.console = console
        self.console_url = f"http://{HOST}:{console.control}"
        self.password = password

    def fail(self, name: str) -> None:
        """Kill an appliance, or "steering". Raises UsageError for another name."""
        self._part(name).kill()

    def revive(self, name: str) -> None:
        """Start what was killed. It is not waited for."""
        part = self._part(name)
        if not part.is_alive:
            part.launch()

    def require_alive(self) -> None:
        """Raises MachineError when something ended that was not killed on purpose."""
        for part in (self.steering, self.console, *self.appliances.values()):
            part.require_alive()

    def _part(self, name: str) -> Part:
        part = self.steering if name == self.steering.name else self.appliances.get(name)
        if part is None:
            known = ", ".join((self.steering.name, *self.appliances))
            raise UsageError(f"{name!r} is nothing of the demo's; there are: {known}")
        return part


@contextmanager
def furnished(folder: Path, origin: Origin, base_url: str | None) -> Iterator[House]:
    """All parts, ready; ended when the block is left. Players reach steering at `base_url`; None: where it listens."""
    names = (PARENT, *(box.id for box in BOXES))
    ports = free_ports(4 + 2 * len(names))
    public, fleet_port, admin, noc = ports[:4]
    urls = {name: f"http://{HOST}:{port}" for name, port in zip(names, ports[4::2], strict=True)}
    control = dict(zip(names, ports[5::2], strict=True))
    token = secrets.token_hex(24)
    login = _set_up_steering(folder / "steering", urls, control, token)
    text = steering_settings(
        folder / "steering", (public, fleet_port, admin), origin, base_url or f"http://{HOST}:{public}"
    )
    (folder / "steering" / "steering.toml").write_text(text)
    with ExitStack() as stack:

        def part(name: str, command: list[str], at: int) -> Part:
            made = Part(name, command, at, folder / name / "log", origin.environment)
            stack.callback(made.end)
            made.launch()
            return made

        command = ["steering", "serve", "--config", str(folder / "steering" / "steering.toml")]
        steering = part("steering", command, admin)
        password = _set_up_console(folder / "console", noc, f"http://{HOST}:{admin}", origin)
        command = ["admin", "serve", "--config", str(folder / "console" / "console.toml")]
        console = part("console", command, noc)
        steering.wait_until("/healthz")  # Appliances fetch its keys when they start, and then once a minute.
        appliances = {}
        for name in names:
            _set_up_appliance(folder / name, token)
            is_parent = name == PARENT
            text = appliance_settings(
                name,
                folder / name,
                int(urls[name].rpartition(":")[2]),
                control[name],
                origin,
                parent=None if is_parent else urls[PARENT],
                steering=None if is_parent else f"http://{HOST}:{fleet_port}",
            )
            (folder / name / "oca.toml").write_text(text)
            command = ["oca", "serve", "--config", str(folder / name / "oca.toml")]
            appliances[name] = part(name, command, control[name])
        for each in appliances.values():
            each.wait_until("/readyz")
        for box in BOXES:
            steering.wait_until(f"/v1/fleet/{box.id}", lambda told: told["standing"] == "serving")
        console.wait_until("/healthz")
        filled = {box.id: appliances[box.id] for box in BOXES}
        night = Night(folder / "night", origin, filled, f"http://{HOST}:{admin}")
        yield House(steering, appliances, urls, public, login, night, console, password)


def _set_up_steering(folder: Path, urls: Mapping[str, str], control: Mapping[str, int], token: str) -> LogIn:
    (folder / "keys").mkdir(parents=True)
    write_signing_key(folder / "keys" / "demo.pem")
    write_cities(folder / "cities.mmdb")
    (folder / "fleet.toml").write_text(fleet(urls, control, token))
    return LogIn(folder / "viewers.json")


def _set_up_console(folder: Path, port: int, steering: str, origin: Origin) -> str:
    """The password of its account."""
    folder.mkdir(parents=True)
    password = secrets.token_urlsafe(12)
    text = console_settings(folder, port, steering, origin, hashed(password))
    (folder / "console.toml").write_text(text)
    return password


def _set_up_appliance(folder: Path, token: str) -> None:
    (folder / "nvme0").mkdir(parents=True)
    (folder / "token").write_text(token)
    (folder / "token").chmod(0o600)
