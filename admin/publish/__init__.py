"""Publishing a film: probe, encode, package, upload, enter in the catalogue."""
