"""A day of players over a whole fleet, driven through steering's own code (`make sim`)."""
