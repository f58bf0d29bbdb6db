"""Dashboards for Grafana, and the document of metrics."""
