"""Runs the control process with the stand-in worker: `run_control.py FILE [--forget-file] [--impatient] [--takeover]`."""

from __future__ import annotations

import sys
from pathlib import Path

from haproxy_py import config_file
from haproxy_py.control import workers
from haproxy_py.control.supervisor import supervise

if __name__ == "__main__":
    workers.WORKER_COMMAND = (sys.executable, str(Path(__file__).with_name("stand_in_worker.py")))
    if "--impatient" in sys.argv:
        workers.READY_WITHIN = 1.0
    source = sys.argv[1]
    sys.exit(
        supervise(
            config_file.load(source),
            None if "--forget-file" in sys.argv else source,
            takeover="--takeover" in sys.argv,
        )
    )
