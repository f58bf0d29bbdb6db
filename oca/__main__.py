"""The `oca` command. argparse and not typer: an appliance that starts again has viewers waiting."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

from oca.commands import devices, reload, store
from oca.commands.terminal import say, show
from oca.credentials import check_credentials
from oca.errors import OcaError, SettingsError
from oca.lifecycle import configure_logging
from oca.reloads import place_of
from oca.settings import Settings, Tier, read_settings
from oca.supervisor import serve as run_appliance
from wire.toml import Bytes, size_of

_EXIT_CODES = """
exit codes:
  0  ended as told
  1  could not start, go on or do what was asked (an address is taken, a folder can't be written, the index is not
     usable, the appliance does not answer or refuses); the message says which
  2  the command line or the settings are wrong; the message names the line or key, what was read and what is allowed
"""

_SERVE = """Run the appliance until SIGTERM.

signals:
  SIGTERM, SIGINT  drain: new connections are refused, running responses finish, within http.drain_timeout;
                   a second one cuts them
  SIGHUP           read the settings anew and replace all processes by those of the code that is installed now, without
                   refusing or cutting a connection (listen.* and appliance.state_dir can't change this way); what can't
                   be used is said in the log, and everything goes on as it was. `oca reload` waits and says so too
"""

_CHECK = "Check the settings without starting anything, and say what they mean."

_RELOAD = """Have the running appliance take up these settings and the code that is installed now, and wait for it.

No connection is refused or cut: the processes that were there finish their responses. Settings that can't be used are
refused, and everything goes on as it was.
"""

_DEVICE = """Look at the devices of the running appliance, and take them in and out of service while it serves.

what a device may be:
  online   read and written
  failing  read, not written: its content moves away or is healed from elsewhere as it is asked for
  offline  neither; viewers get every byte from another device or a source

A device that is slow, full, read-only or gone comes back by itself when probes are good. One with input/output errors,
with rotten bytes or in another's place waits for `oca device add`.
"""

_LIST = """Show every device: where it is, how it stands and why, what is held, what it waits for.

Devices of the settings that could not be taken into service are shown too, and those that are known but not mounted.
"""

_ADD = """Bring a device into service while the appliance serves.

A new device needs --tier and --capacity, unless the settings name its path: then PATH is enough.
A repaired device (the same disk) comes back by PATH alone. For a replaced one say what it is:
  --new    the folder holds no device yet, though one was known here: what it held is given up
  --adopt  the folder holds another device than the one known here: it is taken with what it holds
"""

_DRAIN = """Move what a device holds to others. It is still read, and not written any more.

Without --wait it returns at once and the appliance goes on moving, over restarts too; Ctrl-C ends only the waiting.
"""

_DEVICE_SERVE = "Undo a drain: the device is written again."

_STORE = "Look after what is held."

_VERIFY = """Compare everything on the devices with the index, byte for byte, and print what is wrong.

Also while the appliance serves: it reads at the lowest priority, and looks twice at what comes and goes. Nothing is
changed: what is rotten is fetched anew when it is asked for, or by the scrubber. The exit code is 1 if anything is
wrong.
"""

_INDEX = "Look after the index."

_REBUILD = """Make the index anew from the devices alone, while the appliance is stopped.

For a lost or broken index: what lies on the devices of the settings, and on those that the old index names, is known
again without being fetched. The old index is used until the new one is whole.
"""

_REMOVE = """Take a device out of service for good, so that it can be pulled.

It must be drained; with --force it goes as it is. What is given up is fetched again from a source when it is asked for.
"""


def main() -> None:
    """Exits the process with one of the codes above."""
    given = _parser().parse_args()
    try:
        settings = _whole_settings(given.config) if given.run in (_serve, _check) else read_settings(given.config)
    except SettingsError as error:
        say(f"oca: {error}")
        sys.exit(2)
    try:
        sys.exit(given.run(given, settings))
    except OcaError as error:
        say(f"oca: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)  # As a shell reports it.


def _serve(given: argparse.Namespace, settings: Settings) -> int:
    configure_logging("oca")
    return asyncio.run(run_appliance(settings, given.config))


def _whole_settings(path: str) -> Settings:
    """With the files that they name. Other commands need neither those nor the right to read them."""
    settings = read_settings(path)
    check_credentials(settings)
    if settings.certificate:
        # Cryptography takes time to import: only where it is used.
        from oca.tls import check_certificates  # noqa: PLC0415

        check_certificates(settings)
    return settings


def _check(given: argparse.Namespace, settings: Settings) -> int:
    if given.running is not None:
        try:
            place_of(given.running).check_same(settings)
        except SettingsError as error:
            say(f"oca: {error}")
            return 2
    who = "anybody may watch"
    if settings.access.required and settings.access.keys is not None:
        # Cryptography takes time to import: only where it is used.
        from oca.store.key_files import read_public_keys  # noqa: PLC0415

        who = f"tokens are verified with {', '.join(sorted(read_public_keys(settings.access.keys)))}"
    show(
        f"{given.config}: good: appliance {settings.appliance.id}, {settings.listen.workers} workers on "
        f"{', '.join(settings.listen.ports.values())}, {len(settings.device)} device(s), "
        f"{len(settings.parents)} parent(s), "
        f"origin {settings.origin.url}; {who}"
    )
    return 0


def _reload(given: argparse.Namespace, settings: Settings) -> int:
    return reload.reload_appliance(settings, given.timeout)


def _list(given: argparse.Namespace, settings: Settings) -> int:
    return devices.list_devices(settings, as_json=given.json)


def _add(given: argparse.Namespace, settings: Settings) -> int:
    return devices.add_device(
        settings,
        given.path,
        tier=given.tier,
        capacity=given.capacity,
        dwpd=given.dwpd,
        new=given.new,
        adopt=given.adopt,
        as_json=given.json,
    )


def _drain(given: argparse.Namespace, settings: Settings) -> int:
    return devices.drain_device(settings, given.device, wait=given.wait, as_json=given.json)


def _serve_device(given: argparse.Namespace, settings: Settings) -> int:
    return devices.serve_device(settings, given.device, as_json=given.json)


def _remove(given: argparse.Namespace, settings: Settings) -> int:
    return devices.remove_device(settings, given.device, force=given.force, as_json=given.json)


def _verify(given: argparse.Namespace, settings: Settings) -> int:
    return store.verify_store(settings, given.device, quick=given.quick, as_json=given.json)


def _rebuild(given: argparse.Namespace, settings: Settings) -> int:
    return store.rebuild_index(settings, as_json=given.json)


def _parser() -> _Parser:
    parser = _Parser(prog="oca", description="A cache appliance for films.", epilog=_EXIT_CODES)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="serve | check | reload | device | store | index"
    )
    _command(commands, "serve", _SERVE, _serve)
    check = _command(commands, "check", _CHECK, _check)
    # For the supervisor, before a reload: whether an appliance that runs there may go on with these.
    check.add_argument("--running", metavar="PLACE", help=argparse.SUPPRESS)
    again = _command(commands, "reload", _RELOAD, _reload)
    again.add_argument("--timeout", type=_seconds, default=120.0, metavar="S", help="to wait at most; default 120")
    _add_device_commands(commands)
    _add_store_commands(commands)
    return parser


def _add_device_commands(commands: _Commands) -> None:
    nouns = _group(commands, "device", _DEVICE, "list | add | drain | serve | remove")
    _with_json(_command(nouns, "list", _LIST, _list))

    add = _with_json(_command(nouns, "add", _ADD, _add))
    add.add_argument("path", metavar="PATH", help="a folder on a mounted file system of its own")
    add.add_argument("--tier", type=Tier, choices=list(Tier), metavar="|".join(Tier), help="what it is made of")
    add.add_argument("--capacity", type=_size, metavar="SIZE", help='what the cache may use of it, such as "2 TiB"')
    add.add_argument("--dwpd", type=_writes_per_day, metavar="X", help="drive writes per day that its maker allows")
    kinds = add.add_mutually_exclusive_group()
    kinds.add_argument("--new", action="store_true", help="an empty disk in the place of one that was known")
    kinds.add_argument("--adopt", action="store_true", help="another appliance's or slot's disk, with what it holds")

    drain = _with_json(_command(nouns, "drain", _DRAIN, _drain))
    drain.add_argument("device", metavar="ID|PATH")
    drain.add_argument("--wait", action="store_true", help="return when it is empty, and show what is left meanwhile")

    serve = _with_json(_command(nouns, "serve", _DEVICE_SERVE, _serve_device))
    serve.add_argument("device", metavar="ID|PATH")

    remove = _with_json(_command(nouns, "remove", _REMOVE, _remove))
    remove.add_argument("device", metavar="ID|PATH")
    remove.add_argument("--force", action="store_true", help="even if it is not empty: says how much is given up")


def _add_store_commands(commands: _Commands) -> None:
    verify = _with_json(_command(_group(commands, "store", _STORE, "verify"), "verify", _VERIFY, _verify))
    verify.add_argument("--device", metavar="ID|PATH", help="only this one")
    verify.add_argument("--quick", action="store_true", help="names, lengths and labels only: no content is read")
    _with_json(_command(_group(commands, "index", _INDEX, "rebuild"), "rebuild", _REBUILD, _rebuild))


class _Parser(argparse.ArgumentParser):
    """Shows descriptions as they are written here."""

    def __init__(self, **words: Any) -> None:  # noqa: ANN401 - argparse's own
        super().__init__(**words, formatter_class=argparse.RawDescriptionHelpFormatter)


_Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"  # noqa: SLF001 - it has no public name
Run = Callable[[argparse.Namespace, Settings], int]


def _group(commands: _Commands, name: str, description: str, choices: str) -> _Commands:
    noun = commands.add_parser(name, help=description.splitlines()[0], description=description, epilog=_EXIT_CODES)
    return noun.add_subparsers(dest=name, required=True, metavar=choices)


def _command(commands: _Commands, name: str, description: str, run: Run) -> _Parser:
    command = commands.add_parser(name, help=description.splitlines()[0], description=description, epilog=_EXIT_CODES)
    command.add_argument("--config", required=True, metavar="FILE", help="the settings file (TOML)")
    command.set_defaults(run=run)
    return command


def _with_json(command: _Parser) -> _Parser:
    command.add_argument("--json", action="store_true", help="the answer as one line of JSON, for machines")
    return command


def _size(text: str) -> Bytes:
    try:
        return size_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; read {text!r}") from error


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"read {text!r}; allowed: more than 0, at most 3600 seconds")
    return seconds


def _writes_per_day(text: str) -> float:
    try:
        writes = float(text)
    except ValueError:
        writes = 0.0
    if not 0 < writes <= 100:
        raise argparse.ArgumentTypeError(f"read {text!r}; allowed: more than 0, at most 100")
    return writes


if __name__ == "__main__":
    main()
