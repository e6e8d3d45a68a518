"""What lies in the current folder is never run: whoever starts the proxy may stand where others can write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from haproxy_py.child import make_command, make_environment
from haproxy_py.compiled import CompiledError, check_compiled, list_stale
from tests.control.conftest import get, get_status
from tests.proxy_process import ProxyProcess, describe_instance, find_free_ports

COMMAND = Path(sys.executable).with_name("haproxy-py")
TRAPS = (
    "json.py",
    "socket.py",
    "uvloop.py",
    "sitecustomize.py",
    "usercustomize.py",
    "yaml.py",
    "haproxy_py/__init__.py",
)


class Installed(ProxyProcess):
    """The installed command, as users start it."""

    def make_command(self) -> list[str]:
        return [str(COMMAND), "run", "--config", str(self.config_file)]


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder in which every module that is imported leaves a mark and fails; none may have."""
    folder = tmp_path / "trap"
    mark = tmp_path / "mark"
    for name in TRAPS:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"open({str(mark)!r}, 'a').write(__name__)\nraise SystemExit('a module of the current folder ran')\n"
        )
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    yield folder
    assert not mark.exists(), mark.read_text()


def test_run_worker_restart_and_takeover_ignore_modules_of_the_current_folder(trap: Path, tmp_path: Path) -> None:
    settings = tmp_path / "settings"
    settings.mkdir()
    with Installed(settings, [describe_instance(["http://127.0.0.1:9"], health={"type": "off"})]) as proxy:
        os.kill(get_status(proxy.ops_url)["workers"][0]["pid"], signal.SIGKILL)
        deadline = time.monotonic() + 30
        while proxy.log.count("accepts connections") < 2:
            assert time.monotonic() < deadline, proxy.log
            time.sleep(0.05)
        heir = subprocess.Popen(
            [*proxy.make_command(), "--takeover"], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            assert proxy.process.wait(30) == 0
        finally:
            heir.terminate()
            _, log = heir.communicate(timeout=30)
        assert "this process has taken over" in log
        assert heir.returncode == 0
        proxy.kill()


def is_ready(port: int) -> bool:
    try:
        return get(f"http://127.0.0.1:{port}/readyz")[0] == 200
    except OSError:
        return False


def test_demo_ignores_modules_of_the_current_folder(trap: Path) -> None:
    port, ops_port = find_free_ports(2)
    demo = subprocess.Popen(
        [str(COMMAND), "demo", "--listen", f"127.0.0.1:{port}", "--ops", f"127.0.0.1:{ops_port}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert demo.stdout is not None
    try:
        output = ""
        for line in demo.stdout:
            output += line
            if "Ctrl-C ends everything" in line:
                break
        else:
            pytest.fail(f"the demo has ended: {output}")
        deadline = time.monotonic() + 30
        while not is_ready(ops_port):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        demo.terminate()
        demo.communicate(timeout=30)
    assert demo.returncode == 0


def test_child_is_of_the_package_of_its_parent_not_of_another_that_can_be_found(trap: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "haproxy_py"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("raise SystemExit('another package')")
    child = subprocess.run(
        [*make_command("haproxy_py.worker"), "no number"],
        env=os.environ | {"PYTHONPATH": str(other.parent)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "haproxy_py.worker is started by `haproxy-py run`" in child.stderr
    assert child.returncode == 2


def test_empty_entry_of_pythonpath_does_not_bring_the_current_folder_to_a_child(trap: Path) -> None:
    environment = make_environment(os.environ | {"PYTHONPATH": f"{os.pathsep}/x{os.pathsep}{os.pathsep}y"})
    assert environment["PYTHONPATH"] == os.pathsep.join(["/x", str(trap / "y")])
    assert "PYTHONPATH" not in make_environment({"PYTHONPATH": ""})


def write_datapath(folder: Path, suffix: str) -> Path:
    source = folder / "heads.py"
    for path in (folder / "__init__.py", source, folder / f"heads{suffix}"):
        path.touch()
    return source


def test_compiled_part_for_another_python_is_named(tmp_path: Path) -> None:
    write_datapath(tmp_path, ".cpython-39-x86_64-linux-gnu.so")
    with pytest.raises(
        CompiledError, match=r"missing for cpython 3\.\d+: heads in .*\.cpython-39-.* for another Python"
    ):
        check_compiled(tmp_path)


def test_compiled_part_that_is_there_is_fine(tmp_path: Path) -> None:
    write_datapath(tmp_path, ".abi3.so")
    check_compiled(tmp_path)


def test_source_that_changed_since_it_was_compiled_is_named_in_a_checkout_only(tmp_path: Path) -> None:
    source = write_datapath(tmp_path, ".abi3.so")
    os.utime(tmp_path / "heads.abi3.so", (1, 1))
    assert list_stale(tmp_path) == []
    source.with_suffix(".c").touch()
    assert list_stale(tmp_path) == [source]
