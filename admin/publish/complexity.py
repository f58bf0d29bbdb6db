"""A film's own ladder: how many bits its pictures need, measured in samples of it.

The idea is per-title encoding (Aaron, De Cock et al., Netflix 2015): a cartoon at 1080p needs fewer bits than a table
made for all films allows, and a film of grain and water more. Samples are encoded at the quality that the film itself
gets (the same CRF, no cap); the fullest of them, and a reserve, is the step's cap. Steps that would hardly differ in
rate from the next larger one are left out: who has the bits for one has them for the other.
"""

import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from admin.errors import InputError, MachineError
from admin.processes import tethered
from admin.progress import Step, Watcher
from admin.publish.encoder import Ffmpeg, Film, sample_command
from admin.publish.renditions import Codec, Plan, VideoPlan, in_codec

#: Shorter films say little by samples, and cost little: the table is good for them.
LEAST_SECONDS: Final = 60.0
SAMPLE_SECONDS: Final = 4
_MOST_SAMPLES: Final = 8
_SECONDS_PER_SAMPLE: Final = 30.0
_DEADLINE: Final = 600.0
# Samples are few: what lies between them may be fuller.
_RESERVE: Final = 1.25
# Of the table's rate: no step gets absurdly thin or dear, whatever the samples were.
_LEAST_SHARE: Final = 0.25
_MOST_SHARE: Final = 1.5
_WORTH_A_STEP: Final = 1.25
_UNCAPPED: Final = 8


def fitted(ffmpeg: Ffmpeg, film: Film, plans: tuple[Plan, ...], work_dir: Path, watcher: Watcher) -> tuple[Plan, ...]:
    """The same plans with a ladder that fits this film; as they are if it is shorter than LEAST_SECONDS, or of unknown
    length, or ffmpeg does not find its moments exactly. Raises InputError, MachineError.
    """
    source = film.source
    ladder = [plan for plan in plans if isinstance(plan, VideoPlan) and plan.codec == Codec.H264]
    if source.duration is None or source.duration < LEAST_SECONDS or not source.has_index:
        return plans
    moments = sample_moments(source.duration)
    with watcher.step("measure", len(moments)) as step:
        measured = _measured(ffmpeg, film, ladder, moments, work_dir, step)
        chosen = chosen_ladder(ladder, measured)
        step.note(", ".join(f"{plan.name} {plan.peak_bps / 1e6:.2f} Mbit/s" for plan in chosen))
    others = [codec for codec in Codec if codec != Codec.H264]
    made = {codec: in_codec(chosen, codec) for codec in others} | {Codec.H264: tuple(chosen)}
    kept = {plan.name: plan for family in made.values() for plan in family}
    return tuple(
        kept[plan.name] if isinstance(plan, VideoPlan) else plan
        for plan in plans
        if not isinstance(plan, VideoPlan) or plan.name in kept
    )


def sample_moments(duration: float) -> tuple[float, ...]:
    """When samples begin, in seconds: in the middle of equal parts of the film."""
    count = max(2, min(_MOST_SAMPLES, int(duration // _SECONDS_PER_SAMPLE)))
    return tuple(round((number + 0.5) * duration / count - SAMPLE_SECONDS / 2, 3) for number in range(count))


def chosen_ladder(ladder: list[VideoPlan], measured: Mapping[str, tuple[float, ...]]) -> list[VideoPlan]:
    """The ladder (smallest first) with caps from the samples' bits per second, without steps that are not worth it.

    The smallest and the largest step stay: one for thin lines, the other is what the film looks like.
    """
    capped = []
    for plan in ladder:
        least, most = _LEAST_SHARE * plan.peak_bps, _MOST_SHARE * plan.peak_bps
        capped.append(replace(plan, peak_bps=round(min(most, max(least, _RESERVE * max(measured[plan.name]))))))
    chosen: list[VideoPlan] = []
    for place, plan in enumerate(capped):
        following = capped[place + 1] if place + 1 < len(capped) else None
        if place == 0 or following is None or following.peak_bps >= _WORTH_A_STEP * plan.peak_bps:
            chosen.append(plan)
    return chosen


def _measured(
    ffmpeg: Ffmpeg, film: Film, ladder: list[VideoPlan], moments: tuple[float, ...], work_dir: Path, step: Step
) -> dict[str, tuple[float, ...]]:
    """The bits per second of each sample, by step."""
    free = [replace(plan, peak_bps=_UNCAPPED * plan.peak_bps) for plan in ladder]
    found: dict[str, list[float]] = {plan.name: [] for plan in ladder}
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="measuring-", dir=work_dir) as folder:
            for number, moment in enumerate(moments, start=1):
                files = [Path(folder) / f"{plan.name}.h264" for plan in free]
                command = sample_command(ffmpeg, film, free, files, moment, SAMPLE_SECONDS)
                done = subprocess.run(
                    tethered(list(command)),
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=_DEADLINE,
                    check=False,
                )
                if done.returncode:
                    said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2][:200]
                    raise InputError(f"{film.path}: its pictures at {moment:.0f} s can't be encoded ({said})")
                for plan, file in zip(free, files, strict=True):
                    found[plan.name].append(file.stat().st_size * 8 / SAMPLE_SECONDS)
                step.reach(number)
    except OSError as error:
        raise MachineError(f"the work dir {work_dir} can't be used ({error.strerror}): see --work-dir") from error
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"ffmpeg did not encode {SAMPLE_SECONDS} s within {_DEADLINE:.0f} s") from error
    return {name: tuple(rates) for name, rates in found.items()}
