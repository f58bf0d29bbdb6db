"""The NOC's console: `oca-admin serve`. The fleet in a browser, live, and what is to be done about it."""
