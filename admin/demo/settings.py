"""The settings files of the demo's programs."""

import json
from pathlib import Path
from typing import Final

from admin.demo.login import AUDIENCE, ISSUER
from admin.demo.parts import Origin

HOST: Final = "127.0.0.1"
ORDERS_KEY: Final = "demo"
"""`kid` of signed orders."""
SIGNER: Final = "steering.demo"
"""`iss` of signed URLs."""


def appliance_settings(
    name: str,
    folder: Path,
    http: int,
    control: int,
    origin: Origin,
    *,
    parent: str | None = None,
    steering: str | None = None,
) -> str:
    """`folder` is the appliance's own. With `steering` it reports there, and lets in only who was sent from there."""
    text = f"""\
[appliance]
id = {_quoted(name)}
state_dir = {_quoted(str(folder / "state"))}
[listen]
http = "{HOST}:{http}"
control = "{HOST}:{control}"
workers = 1
[origin]
url = {_quoted(origin.url)}
{_endpoint(origin)}[[device]]
path = {_quoted(str(folder / "nvme0"))}
tier = "nvme"
capacity = "4 GiB"
"""
    # What was watched is shipped when a night begins, and not by the clock.
    text += f"""\
[demand]
bucket = {_quoted(control_url(origin))}
{_endpoint(origin)}jitter = "50 min"
"""
    if parent is not None:
        text += f"[[parents]]\nurl = {_quoted(parent)}\n"
    if steering is not None:
        text += f"""\
[steering]
urls = [{_quoted(steering)}]
token_file = {_quoted(str(folder / "token"))}
interval = "1 s"
holdings_interval = "2 s"
interfaces = ["lo"]
# All of them see all that loopback carries: that shall fill nobody's link.
link_speed = "1000 Gbit/s"
[access]
required = true
issuers = ["{SIGNER}"]
"""
    return text


def steering_settings(folder: Path, ports: tuple[int, int, int], origin: Origin, base_url: str) -> str:
    """`folder` has fleet.toml, cities.mmdb, viewers.json and keys/. `ports` are for players, the fleet, operators."""
    public, fleet, admin = ports
    return f"""\
inventory = {_quoted(str(folder / "fleet.toml"))}
[steering]
id = "demo"
state_dir = {_quoted(str(folder / "state"))}
[listen]
base_url = {_quoted(base_url)}
public = "{HOST}:{public}"
fleet = "{HOST}:{fleet}"
admin = "{HOST}:{admin}"
[content]
catalogue = {_quoted(origin.url)}
{_endpoint(origin)}[geo]
city = {_quoted(str(folder / "cities.mmdb"))}
[answers]
ttl = "10 s"
steering_ttl = "2 s"
[turn_up]
# Its appliances are of this minute, and whoever tries it wants to see a film.
required = false
[patience]
interval = 1
quiet_after = 3
silent_after = 5
rise = 1
ramp = 1
[limits]
# The page stands before it and says where its viewer is.
trusted_proxies = ["{HOST}/32"]
[tokens]
folder = {_quoted(str(folder / "keys"))}
issuer = "{SIGNER}"
publish_ahead = "0 s"
[playback]
keys = {_quoted(str(folder / "viewers.json"))}
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
"""


def console_settings(folder: Path, port: int, steering: str, origin: Origin, hashed: str) -> str:
    """Of the NOC's console. `hashed`: the password of its one account, noc."""
    return f"""\
state_dir = {_quoted(str(folder / "state"))}
steering = {_quoted(steering)}
listen = "{HOST}:{port}"
[[account]]
name = "noc"
role = "admin"
password = {_quoted(hashed)}
[fill]
bucket = {_quoted(control_url(origin))}
{_endpoint(origin)}"""


def control_url(origin: Origin) -> str:
    """Where demand, plans, orders and progress lie: not where a real fleet of the same bucket would look."""
    return f"{origin.url.rstrip('/')}/demo-control"


def planner_settings(folder: Path, origin: Origin, steering: str) -> str:
    """`folder` has orders.pem. `steering` is where operators reach it."""
    return f"""\
state_dir = {_quoted(str(folder / "planner"))}
[control]
bucket = {_quoted(control_url(origin))}
{_endpoint(origin)}[catalogue]
bucket = {_quoted(origin.url)}
{_endpoint(origin)}[fleet]
steering = {_quoted(steering)}
[signing]
key = {_quoted(str(folder / "orders.pem"))}
kid = "{ORDERS_KEY}"
[placement]
# So few viewers are there that one copy at a site would do for all.
copy_share = 1e-12
[peak]
# Whoever tries the demo does so at any hour.
start = 0
stop = 24
"""


def agent_settings(name: str, folder: Path, origin: Origin, oca: str, port: int, order_key: str) -> str:
    """`folder` is the agent's own; `oca` is the control listener of its appliance."""
    return f"""\
appliance = {_quoted(name)}
state_dir = {_quoted(str(folder))}
timezone = "Etc/UTC"
oca = {_quoted(oca)}
listen = "{HOST}:{port}"
peer_wait = "5 s"
pause = "200 ms"
[control]
bucket = {_quoted(control_url(origin))}
{_endpoint(origin)}[order_keys]
{ORDERS_KEY} = {_quoted(order_key)}
"""


def _endpoint(origin: Origin) -> str:
    return f"endpoint_url = {_quoted(origin.endpoint_url)}\n" if origin.endpoint_url else ""


def _quoted(text: str) -> str:
    # A JSON string is a TOML string, but for surrogate pairs (so no \u escapes) and DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
