"""The edge worker: one process that answers players."""
