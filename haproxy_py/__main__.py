"""`python -m haproxy_py` is `haproxy-py`."""

from __future__ import annotations

import sys

from haproxy_py.cli import main

sys.exit(main())
