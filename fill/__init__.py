"""Nightly fill: a planner that decides what lies where by morning, and an agent on each appliance that sees to it."""
