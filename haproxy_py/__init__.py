"""haproxy_py: a reverse proxy for Node-RED instances in High Availability mode."""

import sys

__version__ = "0.1.0"

MIN_PYTHON = (3, 11)  # as pyproject.toml says

# Here, because this file is the only one that an older Python is sure to read without a mistake of its own.
if tuple(sys.version_info[:2]) < MIN_PYTHON:
    sys.exit(
        "haproxy-py needs Python 3.11 or newer; this is Python {}.{} ({})".format(*sys.version_info[:2], sys.executable)
    )
