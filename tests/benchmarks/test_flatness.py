"""haproxy_py's configuration in every setting."""

from __future__ import annotations

import pytest

from benchmarks.flatness import SETTINGS, Setting, write_config
from benchmarks.machine import FOLDER
from benchmarks.proxies import fill
from haproxy_py import config_file

TEMPLATE = (FOLDER / "peers" / "haproxy_py.yaml").read_text()
PORTS = tuple(range(10001, 10201))


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_is_a_configuration(setting: Setting) -> None:
    text = fill(write_config(setting, PORTS, TEMPLATE), {"listen": 8080, "ops": 9090})
    config = config_file.parse(text, "bench.yaml")
    assert config.workers == setting.workers
    assert len(config.instances) == setting.instances
    assert {len(instance.static) for instance in config.instances} == {setting.replicas}
    assert config.log.access == "off"
