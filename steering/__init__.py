"""The steering service: tells every player which appliances to fetch from, the best first."""
