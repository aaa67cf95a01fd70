"""Watching the service: Prometheus beside it, rules and alerts, dashboards, charts drawn here. Nothing knows of Ray."""
