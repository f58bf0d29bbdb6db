"""The nightly fill: planner and agent. It comes with its own issue; nothing is here yet."""
