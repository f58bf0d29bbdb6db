"""The demo: an origin, one film, one appliance and a page that shows where each segment came from."""
