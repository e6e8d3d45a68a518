"""The operators' port: metrics, probes, status, and calls that change something."""
