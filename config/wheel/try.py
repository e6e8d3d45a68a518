"""Tries a wheel as a user would who has no compiler and no checkout: `try.py WHEEL`, by any Python that the wheel is for.

It is installed in a fresh environment from wheels alone, with a PATH on which there is nothing, and run from an empty folder.
Exit status 1, with what failed, if it does not work.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
import venv
from pathlib import Path

WITHIN = 60.0

CONFIGURATION = """
listen: [{address: '127.0.0.1:0'}]
ops: {address: '127.0.0.1:0'}
workers: 1
log: {access: off}
instances: [{name: one, ha: true, replicas: {static: ['http://127.0.0.1:9']}}]
drain: {delay: 0s, deadline: 1s}
"""


def main(arguments: list[str]) -> int:
    wheel = Path(arguments[0]).resolve()
    with tempfile.TemporaryDirectory(prefix="haproxy-py-wheel-") as folder:
        place = Path(folder)
        (place / "empty").mkdir()
        print(f"Installing {wheel.name} in a fresh environment", flush=True)
        venv.create(place / "venv", with_pip=True)
        run(place, "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", str(wheel))
        example = run(place, "haproxy-py", "config", "example")
        run(place, "haproxy-py", "check", "-", given=example)
        ask_proxy(place)
    print(f"{wheel} works")
    return 0


def run(place: Path, command: str, *arguments: str, given: str = "") -> str:
    """The output of a command of the environment. Raises CalledProcessError."""
    return subprocess.run(
        [place / "venv" / "bin" / command, *arguments],
        input=given,
        stdout=subprocess.PIPE,
        text=True,
        cwd=place / "empty",
        env=make_environment(place),
        check=True,
    ).stdout


def make_environment(place: Path) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("PIP_", "HTTP", "http", "NO_PROXY", "SSL_"))
    }
    return {**kept, "HOME": str(place), "PATH": str(place / "empty"), "LC_ALL": "C.UTF-8"}


def ask_proxy(place: Path) -> None:
    """Have it refuse a request, and end."""
    process = subprocess.Popen(
        [place / "venv" / "bin" / "haproxy-py", "run", "--config", "-"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=place / "empty",
        env=make_environment(place),
    )
    ending = threading.Timer(WITHIN, process.kill)  # ends every wait below
    ending.start()
    try:
        if process.stdin is None or process.stderr is None:
            raise RuntimeError("Popen was asked for both")
        process.stdin.write(CONFIGURATION)
        process.stdin.close()
        url, log = "", ""
        for line in process.stderr:
            log += line
            if found := re.search(r"listening on (http://\S+)", line):
                url = found[1]
            if "accepts connections" in line:
                break
        if not url:
            raise SystemExit(f"the proxy does not start:\n{log}")
        try:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}/flows", timeout=WITHIN)
            raise SystemExit("the gate let /flows pass")
        except urllib.error.HTTPError as error:
            with error:
                if error.code != 403:
                    raise SystemExit(f"/flows was answered {error.code} in place of 403:\n{log}") from None
        process.send_signal(signal.SIGTERM)
        log += process.stderr.read()
        if process.wait(WITHIN) != 0:
            raise SystemExit(f"the proxy ended with status {process.returncode}:\n{log}")
    finally:
        ending.cancel()
        process.kill()
        process.wait()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}\n{error.stdout}")
