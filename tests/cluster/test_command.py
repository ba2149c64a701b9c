"""`coopshm-sidecar`, the command line: what it says of a configuration, and how it fails."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from importlib.metadata import version as release
from pathlib import Path

import pytest

from tests.procs import WATCHDOG

SECRET = "0123456789abcdef0123456789abcdef"
COMMAND = str(Path(sys.executable).with_name("coopshm-sidecar"))

Result = subprocess.CompletedProcess[str]


def run(directory: Path, *args: str, **environment: str) -> Result:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COOPSHM_")}
    return subprocess.run(
        [COMMAND, *args], capture_output=True, text=True, cwd=directory, env={**kept, **environment},
        timeout=WATCHDOG, check=False,
    )  # fmt: skip


def check(directory: Path, *lines: str, caches: str = "[caches.c]\n[caches.d]\n") -> Result:
    secret = directory / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    (directory / "x.toml").write_text("\n".join(["namespace = 'shop'", caches, "[cluster]", "name = 'web1'", *lines]))
    return run(directory, "--config", "x.toml", "--check")


def refusal(done: Result) -> str:
    """What it says when it fails: one line on stderr."""
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done
    begin, _, text = done.stderr.partition(": ")
    assert begin == "coopshm-sidecar"
    return text.rstrip()


def test_it_says_which_release_it_is(tmp_path) -> None:
    assert run(tmp_path, "--version").stdout == f"coopshm-sidecar {release('coopshm')}\n"


def test_its_help_has_the_exit_status(tmp_path) -> None:
    text = run(tmp_path, "--help").stdout
    for documented in ("Exit status:", "  2  wrong usage", "Signals:", "Environment:", "--check", "--version"):
        assert documented in text
    assert "\b" not in text


def test_a_good_configuration_is_one_line_on_stdout(tmp_path) -> None:
    done = check(tmp_path, "secret_file = 'secret'", "listen = '0.0.0.0:7411'", "nodes = ['web1:7411', 'web2:7411']")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "x.toml: 2 caches (c, d) of namespace shop; node web1 listens on 0.0.0.0:7411, 2 addresses in `nodes`, "
        "secured by a secret\n"
    )
    done = check(tmp_path, "secret_file = 'secret'", "engine = 'redis://u:hush@cache/2'", caches="[caches.c]")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "x.toml: 1 cache (c) of namespace shop; node web1 meets others in redis://cache:6379, replicate: on_demand, "
        "secured by a secret\n"
    )


def test_what_is_hardly_meant_is_a_warning(tmp_path) -> None:
    done = check(tmp_path, "nodes = ['127.0.0.1:7411']")
    assert (done.returncode, done.stdout.rpartition(", ")[2]) == (0, "so on loopback only\n")
    (line,) = done.stderr.splitlines()
    assert line.startswith("coopshm-sidecar: warning: no secret_file and no tls_cert: every user of this host can be")
    done = check(tmp_path, "secret_file = 'secret'")
    assert (done.returncode, done.stderr) == (
        0,
        "coopshm-sidecar: warning: `nodes` is empty: this node is not connected to any other one\n",
    )


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["lissten = ':1'"], "cluster.lissten: there is no such setting, did you mean 'listen'?"),
        (["secret_file = 'nowhere'"], "cluster.secret_file: nowhere cannot be read: No such file or directory"),
        (["secret_file = '.'"], "cluster.secret_file: . cannot be read: Is a directory"),
        (["secret_file = 'secret'", "tls_cert = 'c'"], "cluster.secret_file: not together with tls_cert; say either"),
        (
            ["secret_file = 'secret'", "engine = 'redis://h'", "nodes = ['a:1']"],
            "cluster.nodes: not together with `engine`: nodes either know each other or meet there",
        ),
        (["[cluster]"], "is not valid TOML: Cannot declare ('cluster',) twice"),
    ],
)
def test_a_mistake_is_one_line_that_names_it_once(tmp_path, lines, message) -> None:
    said = refusal(check(tmp_path, *lines))
    assert said.startswith(f"x.toml: {message}")


def test_without_a_configuration_or_caches_or_a_cluster_it_says_so(tmp_path) -> None:
    assert "no coopshm.toml in the current directory" in refusal(run(tmp_path, "--check"))
    assert "there is nothing to connect" in refusal(check(tmp_path, "secret_file = 'secret'", caches=""))
    (tmp_path / "coopshm.toml").write_text("[caches.c]")
    assert "has no [cluster] table" in refusal(run(tmp_path))
    assert "<$COOPSHM_CONFIG: nowhere.toml>: cannot be read" in refusal(run(tmp_path, COOPSHM_CONFIG="nowhere.toml"))
    assert "$COOPSHM_NAMESPACE: 'a b' is not allowed" in refusal(run(tmp_path, COOPSHM_NAMESPACE="a b"))
    assert run(tmp_path, "--namespace", "a b").returncode == 2
    assert run(tmp_path, "--chek").returncode == 2


def test_an_address_that_cannot_be_listened_on_is_named_with_the_reason(tmp_path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert check(tmp_path, f"listen = '{address}'").returncode == 0, "to check is not to listen"
        done = run(tmp_path, "--config", "x.toml")
    assert done.returncode == 1
    assert f"coopshm-sidecar: cluster.listen: {address}: Address already in use\n" in done.stderr
    assert "Traceback" not in done.stderr
