"""The steering service, which sends every player to an appliance. It comes with its own issue; nothing is here yet."""
