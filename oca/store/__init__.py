"""Disks: the index, the devices and their files."""
