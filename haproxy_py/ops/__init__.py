"""The operators' port: metrics, probes, status."""
