"""What is wrong with an open editor in front of several replicas."""

from __future__ import annotations


def warn_of_open_editor(*, ha: bool | None, replicas: int) -> str:
    """One sentence for operators; empty where nothing is wrong. `ha` is None where it is not known before the start."""
    if ha is not False or replicas < 2:
        return ""
    return (
        f"the editor is open over {replicas} replicas: what is deployed there changes one of them only, and the others go on "
        "with the flows that they have. Switch HA mode on, or run one replica"
    )
