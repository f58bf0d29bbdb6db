"""Promises to the operator and to players, kept by real processes over real sockets and files."""
