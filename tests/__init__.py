"""Mirrors the tree; `doubles` holds the stand-ins for the very edge, `scenarios` the promises kept by real processes."""
