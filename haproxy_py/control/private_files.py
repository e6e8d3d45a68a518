"""Which files with a secret others may read: a warning in `check` and in the log, never an error.

- Others may read it: a warning. The file's group may: a warning if the file is this user's own. One that root shares with a
  group, as Debian does with keys, is meant so, and is only read because of it.
- A file on a read-only mount is left out: so Kubernetes mounts a Secret, with mode 0644 behind a symbolic link. Nobody else is in
  that container, and nobody could follow the advice.
"""

from __future__ import annotations

import os
import shlex
import stat

from haproxy_py.config import Config


def find_exposed(config: Config) -> list[str]:
    """A warning for each file with a token or a private key that others may read: with its place, and what to do."""
    places = [("ops.token_file", config.ops.token_file)]
    for index, listen in enumerate(config.listen):
        if listen.tls is not None:
            key = "key" if listen.tls.key else "certificate"
            places.append((f"listen[{index}].tls.{key}", listen.tls.key or listen.tls.certificate))
    for index, instance in enumerate(config.instances):
        if instance.gate.flows is not None:
            places.append((f"instances[{index}].gate.flows.token_file", instance.gate.flows.token_file))
    if config.instances_from is not None and config.instances_from.gate.flows is not None:
        places.append(("instances_from.gate.flows.token_file", config.instances_from.gate.flows.token_file))
    warnings = [f"{place}: {found}" for place, path in places if path and (found := explain_exposure(path))]
    return list(dict.fromkeys(warnings))


def explain_exposure(path: str) -> str | None:
    """Who else may read this file, and what to do about it; None if nobody, or if it is not there."""
    try:
        status = os.stat(path)
        is_read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return None  # whoever needs the file says so
    if is_read_only or not stat.S_ISREG(status.st_mode):
        return None
    is_own = status.st_uid == os.geteuid()
    if status.st_mode & stat.S_IROTH:
        who = "every user"
    elif status.st_mode & stat.S_IRGRP and is_own:
        who = "its group"
    else:
        return None
    advice = f"chmod 600 {shlex.quote(path)}"
    if not is_own:
        advice = f"give it to the proxy's user, and {advice}"
    return f"{path} may be read by {who} (mode {stat.S_IMODE(status.st_mode):04o}): {advice}"
