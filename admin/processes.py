"""Child processes that never outlive us."""

import shutil
import subprocess
from collections.abc import Sequence
from typing import Literal


def tethered(command: Sequence[str], ending: Literal["KILL", "TERM"] = "KILL") -> list[str]:
    """The command, wrapped so that the kernel ends it when the thread that starts it is gone, even by SIGKILL.

    util-linux's setpriv does it between fork and exec, where Python code (`preexec_fn`) is not safe beside threads.
    Without it, a child outlives only a SIGKILL of its parent.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", ending, *command] if setpriv else list(command)


def end(process: subprocess.Popen[bytes] | subprocess.Popen[str], patience: float) -> None:
    """End the process and reap it: asked first, killed after `patience` seconds."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
