"""Mirrors the tree; `doubles` holds the stand-ins for the very edge, `scenarios` promises kept by real processes."""
