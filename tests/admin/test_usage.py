"""The command line: options, exit statuses, what is said when a request is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version as release
from pathlib import Path

import pytest

from tests.admin.command import COMMAND, LOOKING, NOTHING, USAGE, path_of
from tests.conftest import SHM
from tests.procs import WATCHDOG


@pytest.mark.parametrize("line", [*LOOKING[1:], "reset c", "verify c", "destroy c --yes"])
def test_a_cache_without_a_segment_is_named_with_those_there_are(admin, namespace, configured, line) -> None:
    before = set(SHM.iterdir())
    assert f"namespace '{namespace}' has no cache 'c': " in admin.refusal(line, code=NOTHING)
    path_of(namespace, "a").write_bytes(b"")
    path_of(namespace, "b").write_bytes(b"")
    assert f"namespace '{namespace}' has no cache 'c': there are a, b\n" in admin.refusal(line, code=NOTHING)
    done = admin.run("--namespace", f"{namespace}-other", *line.split())
    assert "it has no caches at all; namespaces with caches are " in done.stderr
    assert namespace in done.stderr
    made = {path.name for path in set(SHM.iterdir()) - before if namespace in path.name}
    assert made == {path_of(namespace, "a").name, path_of(namespace, "b").name}


@pytest.mark.parametrize(
    "line",
    [
        "lists",
        "stats",
        "stats c d",
        "stats a:b",
        "stats ../c",
        "keys c --limit -1",
        "list --bad",
        "--namespace a:b list",
    ],
)
def test_wrong_usage_is_status_2(admin, line) -> None:
    assert "Usage: coopshm-admin" in admin.refusal(line, code=USAGE)


def test_a_version_that_cannot_be_one_is_refused(admin, use) -> None:
    use([])
    assert "1024 are allowed" in admin.refusal("reset c --version", "x" * 2000)
    assert "lone surrogates" in admin.refusal("reset c --version", '"\\ud800"')


def test_a_wrong_configuration_is_refused(admin, use) -> None:
    use([])
    assert "no-such.toml: cannot be read" in admin.run("--config", "no-such.toml", "list").stderr
    (admin.directory / "bad.toml").write_text("namespace = [")
    done = admin.run("--config", "bad.toml", "list")
    assert (done.returncode, done.stderr.partition(":")[0]) == (1, "coopshm-admin")


def test_the_namespace_comes_from_option_environment_or_configuration(admin, use, namespace) -> None:
    use([])
    config, env = admin.directory / "x.toml", {"COOPSHM_NAMESPACE": namespace}
    config.write_text(f"namespace = '{namespace}'")
    elsewhere = {"COOPSHM_NAMESPACE": "elsewhere"}
    assert json.loads(admin.run("--config", "x.toml", "stats", "c", "--json").stdout)["namespace"] == namespace
    assert json.loads(admin.run("stats", "c", "--json", env=env).stdout)["namespace"] == namespace
    assert admin.run("--config", "x.toml", "stats", "c", env=elsewhere).returncode == NOTHING
    assert admin("stats c", env=elsewhere).returncode == 0


def test_json_may_stand_before_the_command(admin, use) -> None:
    use([("k", 1)])
    for line in (*LOOKING, "verify c"):
        assert json.loads(admin.text(f"--json {line}")) == admin.json(line)


def test_it_is_a_module_too_and_documents_its_exit_status(admin) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coopshm.admin", "--help"], capture_output=True, text=True, check=True, timeout=WATCHDOG
    )
    assert done.stdout == admin.run("--help").stdout
    for documented in ("Exit status:", "  3  there is no such cache", "Environment:", "Files:", "Examples:"):
        assert documented in done.stdout
    assert "Usage: coopshm-admin" in done.stdout


def test_every_command_and_option_is_explained(admin) -> None:
    names = [
        line.split()[0] for line in admin.run("--help").stdout.split("Commands:\n")[1].split("\n\n")[0].splitlines()
    ]
    assert names[:11] == "list stats flights top keys get doctor config reset verify destroy".split()
    assert names[-1] == "completion"
    for name in [*names, "config check"]:
        done = admin.run(*name.split(), "--help")
        assert done.returncode == 0
        assert len(done.stdout.splitlines()) > 5
        assert "\\b" not in done.stdout, "click's mark for lines that are not to be joined"


def test_every_command_is_said_in_one_line(admin) -> None:
    for group in ([], ["config"]):
        commands = admin.run(*group, "--help").stdout.split("Commands:\n")[1].split("\n\n")[0].splitlines()
        assert [line for line in commands if not line.endswith(".") or line.endswith("...")] == []


def test_it_says_which_release_it_is(admin) -> None:
    assert admin.run("--version").stdout == f"coopshm-admin {release('coopshm')}\n"


def test_output_that_cannot_be_written_is_one_line_on_stderr(admin, use) -> None:
    use([])
    for line in ("list", "stats c --json"):
        command = [COMMAND, "--namespace", admin.namespace, *line.split()]
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=WATCHDOG
            )
        assert (done.returncode, done.stderr) == (1, "coopshm-admin: [Errno 28] No space left on device\n")
        closed = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
        assert subprocess.run(closed, stderr=subprocess.PIPE, text=True, check=True, timeout=WATCHDOG).stderr == ""


def complete(admin, *words: str) -> list[str]:
    """What bash is told to offer for the last word."""
    environment = {
        "_COOPSHM_ADMIN_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(("coopshm-admin", *words)),
        "COMP_CWORD": str(len(words)),
    }
    done = admin.run(env=environment)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.split()]


def test_shells_complete_files(admin) -> None:
    environment = {"COMP_WORDS": "coopshm-admin --config co", "COMP_CWORD": "2"}
    for command in (COMMAND, str(Path(COMMAND).with_name("coopshm-sidecar"))):
        name = f"_{Path(command).name.upper().replace('-', '_')}_COMPLETE"
        done = subprocess.run(
            [command], env={**os.environ, **environment, name: "bash_complete"}, capture_output=True, text=True,
            check=False, timeout=WATCHDOG,
        )  # fmt: skip
        assert (done.stdout, done.stderr) == ("file,co\n", "")


def test_shells_complete_commands_options_and_caches(admin, namespace, use) -> None:
    use([])
    path_of(namespace, "pages").write_bytes(b"")
    assert complete(admin, "ke") == ["keys"]
    assert complete(admin, "--namespace", namespace, "stats", "") == ["c", "pages"]
    assert complete(admin, "--namespace", namespace, "top", "c", "p") == ["pages"]
    assert complete(admin, "--namespace", namespace, "metrics", "") == ["c", "pages"]
    assert complete(admin, "--namespace", namespace[:-1]) == [namespace]
    assert complete(admin, "--namespace", namespace, "keys", "c", "--sort", "s") == ["stored", "size"]
    assert complete(admin, "--config", "nowhere.toml", "stats", "") == []
    for shell in ("bash", "zsh", "fish"):
        assert "_COOPSHM_ADMIN_COMPLETE" in admin.text(f"completion {shell}")
    bash = admin.text("completion bash")
    assert subprocess.run(["bash", "-n"], input=bash, text=True, capture_output=True, check=True).stderr == ""
