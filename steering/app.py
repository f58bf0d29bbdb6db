"""One steering replica: builds every part, owns the TaskGroup, and ends when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import ssl
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from cryptography import x509
from prometheus_client import CollectorRegistry

from steering.admin import Admin
from steering.announcements import Announcements
from steering.answers.chooser import DnsChooser
from steering.answers.desk import Desk
from steering.answers.door import Door
from steering.answers.playback import Player
from steering.answers.public import Public
from steering.answers.questions import Questions
from steering.catalogue import Catalogue, shelf_at
from steering.decisions import Decider, Target
from steering.dns.answerer import Answerer
from steering.dns.limiter import Limiter
from steering.dns.server import Server, tcp_socket, udp_socket
from steering.dns.settings import DnsSettings
from steering.dns.zone import Zone
from steering.errors import InventoryError, SettingsError, SteeringError
from steering.exporter import CertificateMetrics, DatabaseMetrics, DecisionMetrics, FleetMetrics, ReasonMetrics
from steering.fleet import Fleet, Turn
from steering.hearing import Heard, Hearing
from steering.inventory import Source, parse_inventory, reconciled
from steering.journal import FileJournal
from steering.limits import Buckets
from steering.loiterers import Loiterers
from steering.neighbourhood import Neighbourhood
from steering.pulse import Pulse
from steering.registry.embedded import EmbeddedRegistry
from steering.settings import Settings
from steering.signer import Signer
from steering.snapshot import recall, recall_week, save, save_week
from steering.standing import Standing
from steering.topology.databases import Database, Kind, watch
from steering.topology.locator import Locator
from steering.topology.prefixes import Announced
from steering.viewer_keys import ViewerKeys
from steering.week import Week
from wire.toml import host_and_port

log = logging.getLogger(__name__)

_TICK: Final = 1.0
_PREPARE: Final = 5.0
_SNAPSHOT: Final = 30.0
_KEYS: Final = 10.0
_DATABASES: Final = 20.0
"""Seconds that a start waits for each GeoIP file. A dead disk must not keep players waiting."""
_STOP: Final = 5.0
"""Seconds that answers under way have to go out when it ends."""
_KEEPALIVE: Final = 75.0
_FILE: Final = "the inventory file"


class Steering:
    """The parts of one replica, and what connects them."""

    def __init__(self, settings: Settings, registry: EmbeddedRegistry, group: asyncio.TaskGroup) -> None:
        self._settings = settings
        self._registry = registry
        self._group = group
        self._state_dir = Path(settings.steering.state_dir)
        seed = settings.steering.seed
        self._pulse = Pulse()
        self.fleet = Fleet(settings.patience, seed, proof_required=settings.turn_up.required)
        self._cities = Database(Kind.CITY, settings.geo.city)
        self._asns = Database(Kind.ASN, settings.geo.asn)
        self._announcements = Announcements(Announced())
        self.locator = Locator(
            self._announcements.announced, self._asns, self._cities, widest_km=settings.geo.centroid_radius
        )
        self._catalogue = Catalogue(
            shelf_at(settings.content.catalogue, settings.content.endpoint_url, settings.content.region),
            settings.content.refresh,
            time.monotonic,
            self._spawn,
        )
        self.decider = Decider(
            self.fleet,
            Neighbourhood(registry.inventory, seed),
            settings.ranking,
            seed,
            settings.steering.id,
            settings.content.origin,
            [Target(static.id, static.url.rstrip("/")) for static in settings.fallback],
        )
        self.metrics = CollectorRegistry()
        self._decided = DecisionMetrics(self.metrics)
        self._journal: FileJournal | None = None
        if settings.decisions.path is not None:
            self._journal = FileJournal(settings.decisions.path, settings.decisions.share, settings.ranking, seed)
        self._signer: Signer | None = None
        if settings.tokens is not None:
            self._signer = Signer(settings.tokens, time.time, settings.limits.ipv4_prefix, settings.limits.ipv6_prefix)
        self.desk = Desk(
            self.decider,
            self.locator,
            self._catalogue,
            self._decided,
            self._pulse,
            settings.limits.lag,
            time.time,
            self._journal,
            self._signer,
        )
        self._chooser: DnsChooser | None = None
        self._dns: tuple[DnsSettings, Answerer] | None = None
        if settings.dns is not None:
            self._chooser = DnsChooser(
                self.desk, self.fleet, settings.fallback, settings.dns.ttl, float(settings.answers.session)
            )
            self._dns = settings.dns, _answerer(settings.dns, self._chooser)
        buckets = Buckets(settings.limits.rate, settings.limits.burst, settings.limits.networks)
        door = Door(settings.limits, buckets, time.monotonic)
        questions = Questions(settings.answers, self.desk)
        self._viewer_keys: ViewerKeys | None = None
        self._player: Player | None = None
        if settings.playback is not None:
            self._viewer_keys = ViewerKeys(settings.playback, self._state_dir, time.monotonic)
            base_url = settings.listen.base_url
            self._player = Player(
                settings.playback, base_url, door, self.desk, questions, self._catalogue, self._viewer_keys, time.time
            )
        self._door = door
        self._public = Public(settings.listen.base_url, self.desk, door, questions, self._player)
        self._hearing = Hearing(self.fleet, self._announcements, time.time, self._turned, self._signer)
        self.week = Week()
        self._admin = Admin(
            registry,
            self.fleet,
            self.desk,
            self.metrics,
            time.time,
            self.take_inventory,
            self.missing,
            self.week.expected,
            self._announcements,
        )
        self.metrics.register(FleetMetrics(self.fleet, self._gauges()))
        self.metrics.register(
            ReasonMetrics(
                "oca_steering_prefixes_refused",
                "Routes of the appliances' last reports that were not accepted, by reason.",
                self._announcements.rejected,
                counts=False,
            )
        )
        self.metrics.register(DatabaseMetrics(lambda: (self._cities.status, self._asns.status)))
        if self._dns is not None:
            answerer = self._dns[1]
            self.metrics.register(
                ReasonMetrics("oca_steering_dns", "DNS questions, by what became of them.", lambda: answerer.counts)
            )
        if self._player is not None:
            self._measure(self._player)
        self._reload_failures = 0
        self._contexts: dict[str, ssl.SSLContext] = {}
        """Of the listeners that speak TLS."""
        self._certificates_end: dict[str, float] = {}
        """When the certificate of each ends, in seconds since 1970."""
        self.metrics.register(CertificateMetrics(self._certificates_end))
        self._loiterers: list[tuple[Loiterers, web.Server]] = []

    def _measure(self, player: Player) -> None:
        self.metrics.register(
            ReasonMetrics("oca_steering_playbacks", "Presses on play, by what became of them.", lambda: player.pressed)
        )
        self.metrics.register(
            ReasonMetrics(
                "oca_steering_viewers_refused", "Viewers who were not let in, by why.", lambda: player.turned_away
            )
        )

    # --- What is done once, in this order ---

    async def prepare(self) -> None:
        """Everything that is known without asking anyone. Raises `SteeringError` for what the operator must mend."""
        await self._refresh_databases()
        if self._settings.inventory is not None:
            await self.read_inventory(self._settings.inventory)
        self.take_inventory()
        view = await recall(self._state_dir / "view")
        if view is not None:
            known = self.fleet.restore(view.members, time.time())
            log.info("a view of %d appliances, %.0f s old, is believed", known, time.time() - view.saved_at)
        await recall_week(self._state_dir / "week", self.week, self.fleet.inventory.sites)
        if self._viewer_keys is not None:
            await self._viewer_keys.prepare()
        self.decider.prepare()
        # A million prefixes and a fleet stay: the collector need not walk through them, which would take a second.
        gc.collect()
        gc.freeze()

    async def read_inventory(self, path: str) -> None:
        """Make the registry say what the file says. Raises `InventoryError`, and then nothing has changed."""
        try:
            text = await asyncio.to_thread(Path(path).read_text, encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InventoryError(f"{path}: can't be read: {error}") from error
        declared = await asyncio.to_thread(parse_inventory, text, path)
        changes = reconciled(self._registry.inventory, declared, path)
        if changes:
            await self._registry.change(*changes, who=_FILE, why=path, source=Source.FILE)
            log.info("%d changes from %s", len(changes), path)

    def take_inventory(self) -> None:
        """Go by the registry's inventory from now on."""
        inventory = self._registry.inventory
        self._turned(self.fleet.take(inventory, time.time()))
        self._announcements.declare(inventory)
        self.decider.neighbourhood = Neighbourhood(inventory, self._settings.steering.seed)
        self._decided.forget_sites(inventory.sites)
        self.decider.prepare()

    # --- What goes on until the end ---

    async def serve(self, stopped: asyncio.Event) -> None:
        """Answer until `stopped`. Raises `SteeringError` if an address can't be taken."""
        settings = self._settings
        runners = [
            await self._listen(self._public.application(), settings.listen.public, self._tls("public")),
            await self._listen(self._hearing.application(), settings.listen.fleet, self._tls("fleet")),
            await self._listen(self._admin.application(), settings.listen.admin, None),
        ]
        dns = await self._answer_resolvers()
        tasks = [
            self._spawn(self._pulse.run()),
            self._spawn(every(_TICK, self._tick)),
            self._spawn(every(_PREPARE, self.decider.prepare)),
            self._spawn(watch((self._cities, self._asns), time.time, settings.geo.check)),
            self._spawn(self._snapshots()),
        ]
        if self._signer is not None:
            tasks.append(self._spawn(every(_KEYS, self._signer.look)))
        if self._viewer_keys is not None:
            tasks.append(self._spawn(self._viewer_keys.run()))
        if self._journal is not None:
            tasks.append(self._spawn(self._journal.run()))
        log.info("steering %s is up, process %d", settings.steering.id, os.getpid())
        await stopped.wait()
        if dns is not None:
            await dns.stop(_STOP)
        for runner in runners:
            await runner.cleanup()
        for task in tasks:
            task.cancel()
        if self._journal is not None:
            await self._journal.flush()
            self._journal.close()
        await self._save()
        await self._catalogue.close()
        log.info("steering %s ends", settings.steering.id)

    async def reload(self) -> None:
        """SIGHUP: databases, certificates, inventory file, and a new log of decisions. What is wrong is logged and left
        out.
        """
        await self._refresh_databases()
        if self._journal is not None:
            self._journal.rotate()
        for listener, context in self._contexts.items():
            try:
                self._load_certificate(listener, context)
            except SettingsError as error:
                self._reload_failures += 1
                log.error("the certificate stays as it was: %s", error)
        if self._settings.inventory is None:
            return
        try:
            await self.read_inventory(self._settings.inventory)
        except SteeringError as error:
            self._reload_failures += 1
            log.error("the inventory stays as it was: %s", error)
            return
        self.take_inventory()

    def missing(self) -> list[str]:
        """What keeps full decisions from being made."""
        reasons = []
        if not self.fleet.inventory.appliances:
            reasons.append("the inventory has no appliances")
        elif not any(member.standing is Standing.SERVING for member in self.fleet.members.values()):
            reasons.append("no appliance serves")
        if self.fleet.panic_since is not None:
            reasons.append("too much of the fleet fell silent at once: the last view is kept")
        return reasons

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self._group.create_task(_guarded(work))

    async def _listen(self, app: web.Application, address: str, tls: ssl.SSLContext | None) -> web.AppRunner:
        host, port = host_and_port(address)
        head = float(self._settings.limits.head)
        loiterers = Loiterers(head, _KEEPALIVE + head, time.monotonic)
        app.middlewares.insert(0, loiterers.notice)
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=_KEEPALIVE, shutdown_timeout=_STOP)
        await runner.setup()
        server = runner.server
        assert server is not None
        self._loiterers.append((loiterers, server))
        try:
            await web.TCPSite(runner, host, port, ssl_context=tls, backlog=1024).start()
        except OSError as error:
            raise SteeringError(f"{address}: can't be listened on: {error.strerror or error}") from error
        return runner

    async def _answer_resolvers(self) -> Server | None:
        """The DNS listeners, if there is a zone."""
        if self._dns is None:
            return None
        settings, answerer = self._dns
        address = self._settings.listen.dns
        host, port = host_and_port(address)
        server = Server(answerer, settings, time.time)
        try:
            udp = udp_socket(host, port)
            await server.start([udp], [tcp_socket(host, port)])
        except OSError as error:
            raise SteeringError(f"{address}: can't be listened on for DNS: {error.strerror or error}") from error
        return server

    def _tls(self, listener: str) -> ssl.SSLContext | None:
        if getattr(self._settings.tls, f"{listener}_cert") is None:
            return None
        context = self._contexts[listener] = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._load_certificate(listener, context)
        return context

    def _load_certificate(self, listener: str, context: ssl.SSLContext) -> None:
        """Into a new context, or into one in use: handshakes from now on show it. Raises `SettingsError`."""
        tls = self._settings.tls
        certificate, key = getattr(tls, f"{listener}_cert"), getattr(tls, f"{listener}_key")
        try:
            context.load_cert_chain(certificate, key)
            shown = x509.load_pem_x509_certificate(Path(certificate).read_bytes())
            self._certificates_end[listener] = shown.not_valid_after_utc.timestamp()
            if listener == "fleet" and tls.fleet_client_ca is not None:
                context.load_verify_locations(tls.fleet_client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError, ValueError) as error:
            raise SettingsError(f"tls: {certificate} and {key} can't be used: {error}") from error

    def _tick(self) -> None:
        self._turned(self.fleet.tick(time.time()))
        for loiterers, server in self._loiterers:
            loiterers.look(server)

    async def _refresh_databases(self) -> None:
        """Look at the files now. The watch says what is wrong with them; here they are only not waited for too long."""
        for database in (self._cities, self._asns):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DATABASES):
                    await asyncio.to_thread(database.refresh, time.time())

    async def _snapshots(self) -> None:
        while True:
            await asyncio.sleep(_SNAPSHOT)
            self.week.note(self.fleet.loads(), time.time())
            await self._save()

    async def _save(self) -> None:
        await save(self._state_dir / "view", tuple(self.fleet.states()), time.time())
        await save_week(self._state_dir / "week", self.week)

    def _turned(self, turns: list[Turn]) -> None:
        if turns and self._chooser is not None:
            self._chooser.forget()
        for turn in turns:
            log.info("appliance %s: %s -> %s (%s: %s)", turn.appliance, turn.before, turn.after, turn.why, turn.detail)

    def _gauges(self) -> dict[str, tuple[str, Callable[[], float]]]:
        journal = self._journal
        counts = self._hearing.counts
        return {
            "oca_steering_loop_lag_seconds": ("How late the event loop is.", lambda: self._pulse.lag),
            "oca_steering_limited_total": ("Questions that came too fast.", lambda: self._door.limited),
            "oca_steering_ranking_failures_total": ("Decisions whose ranking failed.", lambda: self._decided.failures),
            "oca_steering_heartbeats_total": ("Heartbeats heard.", lambda: counts[Heard.HEARTBEAT]),
            "oca_steering_holdings_total": ("Holdings learned.", lambda: counts[Heard.HOLDINGS]),
            "oca_steering_reports_total": ("Reports of learned prefixes.", lambda: counts[Heard.PREFIXES]),
            "oca_steering_refused_total": ("Messages of appliances refused.", lambda: counts[Heard.REFUSED]),
            "oca_steering_prefixes": ("Announced prefixes.", lambda: len(self._announcements.announced)),
            "oca_steering_prefixes_without_second": (
                "Prefixes that only one of a site's several appliances announces.",
                self._announcements.without_second,
            ),
            "oca_steering_titles": ("Titles whose documents are known.", lambda: len(self._catalogue)),
            "oca_steering_catalogue_failures_total": (
                "Documents that could not be had or read.",
                lambda: self._catalogue.failures,
            ),
            "oca_steering_viewer_keys_failures_total": (
                "Key sets of viewers that could not be had or used.",
                lambda: 0 if self._viewer_keys is None else self._viewer_keys.failures,
            ),
            "oca_steering_connections": (
                "Open at the listeners of players, appliances and operators.",
                lambda: sum(len(loiterers) for loiterers, _ in self._loiterers),
            ),
            "oca_steering_loiterers_total": (
                "Connections closed since no request came in time.",
                lambda: sum(loiterers.closed for loiterers, _ in self._loiterers),
            ),
            "oca_steering_maintenance_put_off": (
                "Appliances whose maintenance waits until the rest of their site can carry its load.",
                lambda: sum(member.put_off is not None for member in self.fleet.members.values()),
            ),
            "oca_steering_turn_up_failed": (
                "Appliances that shall serve and did not pass their last turn-up checks.",
                self.fleet.failed_turn_ups,
            ),
            "oca_steering_turn_up_overdue": (
                "Appliances that shall serve and whose last turn-up checks are longer ago than turn_up.overdue.",
                lambda: self.fleet.overdue_turn_ups(time.time() - self._settings.turn_up.overdue),
            ),
            "oca_steering_sites": ("Sites in the inventory.", lambda: len(self.fleet.inventory.sites)),
            "oca_steering_inventory_version": (
                "Version of the inventory: it grows with each change.",
                lambda: self.fleet.inventory.version,
            ),
            "oca_steering_reload_failures_total": (
                "Inventory files and certificates that a reload refused.",
                lambda: self._reload_failures,
            ),
            "oca_steering_decisions_logged_total": (
                "Decisions written to the log.",
                lambda: 0 if journal is None else journal.written,
            ),
            "oca_steering_decisions_unlogged_total": (
                "Decisions that the log lost.",
                lambda: 0 if journal is None else journal.lost,
            ),
        }


async def every(seconds: float, act: Callable[[], None]) -> None:
    """Again and again, whatever comes of it."""
    while True:
        await asyncio.sleep(seconds)
        try:
            act()
        except Exception:
            # Once is a mistake of ours; never again would be a fleet in which nobody is ever lost.
            log.exception("%s failed; it is tried again", act.__qualname__)


def _answerer(dns: DnsSettings, chooser: DnsChooser) -> Answerer:
    serial = int(time.time()) if dns.serial is None else dns.serial
    limiter = Limiter(dns.rate_limit, dns.rate_window, dns.slip, dns.rate_accounts, dns.unlimited)
    return Answerer(Zone(dns, serial), chooser, dns, limiter)


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises `SteeringError` if it can't start."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    path = Path(settings.steering.state_dir) / "registry.sqlite"
    async with EmbeddedRegistry(str(path), time.time) as registry, asyncio.TaskGroup() as group:
        steering = Steering(settings, registry, group)
        await steering.prepare()
        loop.add_signal_handler(signal.SIGHUP, lambda: group.create_task(_guarded(steering.reload()), name="reload"))
        await steering.serve(stopped)


async def _guarded(work: Coroutine[Any, Any, None]) -> None:
    """A task that fails is logged; the others, and the answers, go on."""
    with contextlib.suppress(asyncio.CancelledError):
        try:
            await work
        except Exception:
            log.exception("a task of steering ended by a mistake of ours")
