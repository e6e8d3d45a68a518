"""haproxy_py: a reverse proxy for Node-RED instances in High Availability mode."""

__version__ = "0.1.0"
