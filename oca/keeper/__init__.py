"""The keeper: the one process that fetches, stores, exports metrics and answers the control API."""
