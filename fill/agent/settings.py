"""The agent's settings: a TOML file on the appliance, checked before anything is done."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Meta, Struct

from fill.agent.window import Window
from fill.errors import SettingsError
from fill.rules import Clock
from fill.settings import Store
from wire.heartbeat import ApplianceId
from wire.orders import public_key
from wire.toml import BitsPerSecond, Document, Mistake, Seconds, host_and_port, leads_somewhere


class Hours(Struct, frozen=True, forbid_unknown_fields=True):
    """When the appliance is filled, by the clock of its place."""

    start: Clock = "02:00"
    stop: Clock = "14:00"


class Rate(Struct, frozen=True, forbid_unknown_fields=True):
    most: BitsPerSecond = BitsPerSecond(1_200_000_000)
    """The cap of what fill brings in."""
    renditions: Annotated[int, Meta(ge=1, le=16)] = 2
    """Brought at a time."""
    objects: Annotated[int, Meta(ge=1, le=16)] = 4
    """Of each of these at a time."""
    egress_share: Annotated[float, Meta(gt=0, le=1)] = 0.7
    """Of the link: while viewers take more, fill gives way."""


class Agent(Struct, frozen=True, forbid_unknown_fields=True):
    appliance: ApplianceId
    """As `appliance.id` in oca's settings."""
    state_dir: str
    """Where the journal and the last order are kept; an absolute path."""
    timezone: str
    """Of the place where the appliance stands, such as Europe/Lisbon."""
    control: Store
    """Where orders lie, and progress is written."""
    order_keys: dict[str, str]
    """Whose orders are obeyed: by `kid`, what oca-fill keygen printed."""
    oca: str = "http://127.0.0.1:9145"
    """The appliance's control listener (listen.control)."""
    listen: str = "127.0.0.1:9146"
    """The agent's own /metrics and /v1/status. Never a public address: it has no password."""
    window: Hours = Hours()
    rate: Rate = Rate()
    peer_wait: Seconds = Seconds(3600)
    """How long peers that an order names are waited for before the appliance fetches from outside itself."""
    pause: Seconds = Seconds(15)
    """Before a peer that did not have something yet, or a source that did not answer, is asked again; doubled each
    time, up to 20 times as long."""
    poll: Seconds = Seconds(60)
    """How often the bucket is asked for orders. 1 s to 1 h."""


def read_settings(path: str) -> Agent:
    """Raises `SettingsError`, whose message is written for the operator."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not UTF-8 text") from error
    return parse_settings(text, path)


def parse_settings(text: str, path: str) -> Agent:
    """As `read_settings`. `path` stands in messages only."""
    try:
        document = Document(text, path)
        agent = document.read(Agent)
        _check(agent, document)
    except Mistake as error:
        raise SettingsError(str(error)) from error
    return agent


def window_of(agent: Agent) -> Window:
    start, stop = (dt.time.fromisoformat(text) for text in (agent.window.start, agent.window.stop))
    return Window(start, stop, ZoneInfo(agent.timezone))


def keys_of(agent: Agent) -> dict[str, Ed25519PublicKey]:
    return {kid: public_key(text) for kid, text in agent.order_keys.items()}


def _check(agent: Agent, document: Document) -> None:
    refuse = document.refused
    if not agent.state_dir.startswith("/"):
        raise refuse(["state_dir"], f"read {agent.state_dir!r}; allowed: an absolute path")
    if agent.timezone not in available_timezones():
        raise refuse(["timezone"], f"read {agent.timezone!r}; allowed: a zone such as Europe/Lisbon")
    if not leads_somewhere(agent.control.bucket, ("s3",)):
        raise refuse(
            ["control", "bucket"], f"read {agent.control.bucket!r}; allowed: s3://bucket or s3://bucket/prefix"
        )
    if agent.control.endpoint_url is not None and not leads_somewhere(agent.control.endpoint_url, ("http", "https")):
        raise refuse(["control", "endpoint_url"], f"read {agent.control.endpoint_url!r}; allowed: http(s)://host:port")
    if not leads_somewhere(agent.oca, ("http",)):
        raise refuse(["oca"], f"read {agent.oca!r}; allowed: http://host:port")
    try:
        host_and_port(agent.listen)
    except ValueError as error:
        raise refuse(["listen"], f"read {agent.listen!r}; allowed: host:port") from error
    if not agent.order_keys:
        raise refuse(["order_keys"], "is empty; allowed: at least one key, as oca-fill keygen prints it")
    for kid, text in agent.order_keys.items():
        try:
            public_key(text)
        except ValueError as error:
            raise refuse(["order_keys", kid], "is no key; allowed: what oca-fill keygen printed") from error
    if not 1 <= agent.poll <= 3600:
        raise refuse(["poll"], f"read {agent.poll:g} s; allowed: 1 s to 1 h")
    if not 0.1 <= agent.pause <= 600:
        raise refuse(["pause"], f"read {agent.pause:g} s; allowed: 100 ms to 10 min")
    if agent.rate.most < 1_000_000:
        raise refuse(["rate", "most"], f"read {int(agent.rate.most)}; allowed: 1 Mbit/s and more")
