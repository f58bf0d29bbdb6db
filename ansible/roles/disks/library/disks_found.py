#!/usr/bin/python3
"""What lies on disks, without changing anything."""

import json
import os
import stat
import subprocess

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: disks_found
short_description: Says what lies on disks
description:
  - Looks for file systems, partitions and other signatures, for who holds or mounts a disk. Changes nothing.
options:
  paths:
    description: Disks, best by /dev/disk/by-id.
    type: list
    elements: path
    required: true
author:
  - The oca maintainers
"""

EXAMPLES = """
- name: Look what lies on the disks
  disks_found:
    paths: [/dev/disk/by-id/nvme-1]
"""

RETURN = """
found:
  description: By path, real (its device), what (that lies on it; empty if nothing does), label, uuid, fstype, mounted.
  type: dict
  returned: always
"""

DEADLINE = 30


def main():
    module = AnsibleModule(
        argument_spec={"paths": {"type": "list", "elements": "path", "required": True}}, supports_check_mode=True
    )
    try:
        found = {path: look(path) for path in module.params["paths"]}
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        module.fail_json(msg=f"disks can't be looked at: {error}")
    module.exit_json(changed=False, found=found)


def look(path):
    empty = {"real": "", "what": "", "label": "", "uuid": "", "fstype": "", "mounted": []}
    try:
        real = os.path.realpath(path, strict=True)
    except OSError:
        return {**empty, "what": "it is not there"}
    if not stat.S_ISBLK(os.stat(real).st_mode):
        return {**empty, "real": real, "what": "it is no block device"}
    probed = run("blkid", "--probe", "--output", "export", real, may=(0, 2, 8))
    tags = dict(line.partition("=")[::2] for line in probed.splitlines())
    signatures = json.loads(run("wipefs", "--no-act", "--json", real) or "{}").get("signatures", [])
    name = os.path.basename(real)
    block = f"/sys/class/block/{name}"
    parts = [entry for entry in sorted(os.listdir(block)) if entry.startswith(name)]
    holders = sorted(os.listdir(f"{block}/holders")) if os.path.isdir(f"{block}/holders") else []
    mounted = [line.split()[1] for line in open_lines("/proc/self/mounts") if line.split()[0] == real]
    words = []
    if parts:
        words.append(f"partitions ({', '.join(parts)})")
    words += [f"{one.get('type', 'a signature')} at {one.get('offset')}" for one in signatures]
    if holders:
        words.append(f"held by {', '.join(holders)}")
    words += [f"mounted at {place}" for place in mounted]
    return {
        "real": real,
        "what": "; ".join(words),
        "label": tags.get("LABEL", ""),
        "uuid": tags.get("UUID", ""),
        "fstype": tags.get("TYPE", ""),
        "mounted": mounted,
    }


def open_lines(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read().splitlines()


def run(*command, may=(0,)):
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=DEADLINE)
    if done.returncode not in may:
        raise ValueError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main()
