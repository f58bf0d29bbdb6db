"""The appliance beside nginx on this machine: `python -m tests.bench --help`."""
