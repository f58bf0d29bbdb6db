"""A crowd of viewers that are not there: real HTTP, a player's way of choosing, nobody to look at it."""
