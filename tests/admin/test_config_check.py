"""config check: the configuration as it takes effect, or everything that is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coopshm.admin.checking import mistakes
from coopshm.admin.cli import cli
from coopshm.config import CacheConfig
from tests.admin.command import USAGE


def write(directory: Path, text: str) -> None:
    (directory / "coopshm.toml").write_text(text)


def test_the_settings_are_shown_with_their_defaults(admin) -> None:
    write(
        admin.directory,
        "namespace = 'x'\n[caches.a]\nmemory_limit = '8 MiB'\nversion = '7'\n[cluster]\nlisten = '[::1]:1'",
    )
    done = admin.run("config", "check")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line]
    assert ["source", str(admin.directory / "coopshm.toml")] in rows
    assert ["namespace", "x"] in rows
    assert ["memory_limit", "8.0 MiB (8388608 bytes)"] in rows
    assert ["version", '"7"'] in rows
    assert ["hot_objects", "true"] in rows
    document = json.loads(admin.run("config", "check", "--json").stdout)
    assert (document["namespace"], document["errors"], document["cluster"]) == ("x", [], {"listen": "[::1]:1"})
    settings = CacheConfig("a", "8 MiB", version="7")._asdict()
    assert document["caches"] == {"a": {**{k: v for k, v in settings.items() if k != "name"}, "mode": "0600"}}


def test_the_environment_and_the_options_count(admin) -> None:
    (admin.directory / "x.toml").write_text("namespace = 'x'\n[caches.a]")
    environment = {"COOPSHM_CONFIG": "x.toml", "COOPSHM_NAMESPACE": "y"}
    assert json.loads(admin.run("config", "check", "--json", env=environment).stdout)["namespace"] == "y"
    assert admin.json("config check x.toml")["namespace"] == admin.namespace
    assert json.loads(admin.run("--config", "x.toml", "--json", "config", "check").stdout)["namespace"] == "x"
    assert admin.json("config check")["implicit"] is True
    assert "any name is a cache" in admin.text("config check")


WRONG = """
namespace = "a b"
nonsense = 1
[caches.x]
memory_limit = "64 M"
lifetime = "hst"
max_item = 3
mode = "0660"
[caches.y]
mode = "0660"
group = "g"
[caches."a:b"]
"""


def test_all_mistakes_are_told(admin) -> None:
    write(admin.directory, WRONG)
    done = admin("config check")
    assert (done.returncode, done.stderr) == (1, "")
    first, *rest = done.stdout.splitlines()
    assert first == "coopshm.toml has 7 mistakes:"
    assert [line.split(":")[0] for line in rest] == [
        "namespace", "nonsense", "caches.x.memory_limit", "caches.x.lifetime", "caches.x.max_item", "caches.x.mode",
        "cache name",
    ]  # fmt: skip
    document = json.loads(admin("config check --json").stdout)
    assert document == {"source": "coopshm.toml", "errors": rest}


@pytest.mark.parametrize("table", [{"caches": 3}, {"caches": {"x": 3}}, {"cluster": []}, {"caches": {1: {}}}, {"": {}}])
def test_whatever_load_refuses_is_a_mistake(table) -> None:
    assert len(mistakes(table)) == 1
    assert mistakes({"caches": {"x": {"version": 1}}, "cluster": {}}) == []


def test_what_the_host_lacks_is_a_mistake(admin) -> None:
    write(admin.directory, "[caches.x]\nuser = 'no-such'\ngroup = 'no-such'\n[caches.'y.z']\nserializer = 'nowhere:x'")
    assert [text.split(":")[0] for text in json.loads(admin("config check --json").stdout)["errors"]] == [
        "caches.x.user",
        "caches.x.group",
    ]
    write(
        admin.directory,
        "[caches.'y.z']\nserializer = 'nowhere:x'\non_reset = 'app:gone'\n[caches.a]\non_reset = 'app:f'",
    )
    assert admin("config check").returncode == 0, "the application is not imported unless that is asked for"
    (admin.directory / "app.py").write_text("def f(version): ...\n")
    errors = json.loads(admin("config check --import --json").stdout)["errors"]
    assert [text.split(": ")[0] for text in errors] == ["caches.'y.z'.serializer", "caches.'y.z'.on_reset"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("lissten = '127.0.0.1:1'", "cluster.lissten: there is no such setting, did you mean 'listen'?"),
        ("nodes = 'web1:1'", "cluster.nodes: 'web1:1' is not allowed"),
        ("secret_file = 'nowhere'", "cluster.secret_file: "),
    ],
)
def test_what_a_sidecar_would_refuse_is_a_mistake(admin, line, said) -> None:
    write(admin.directory, f"[caches.x]\n[cluster]\n{line}")
    document = json.loads(admin("config check --json").stdout)
    assert document["source"] == str(admin.directory / "coopshm.toml")
    (error,) = document["errors"]
    assert error.startswith(said)


def test_without_the_sidecars_packages_its_table_is_not_checked(admin, monkeypatch, capsys) -> None:
    write(admin.directory, "[cluster]\nlissten = 3")
    monkeypatch.setattr("coopshm.admin.checking._has_cluster", lambda: False)
    monkeypatch.chdir(admin.directory)
    cli(["config", "check"], standalone_mode=False)
    assert "cluster    lissten (not checked: coopshm[cluster] is not installed here)" in capsys.readouterr().out


def test_a_file_that_is_none_is_one_mistake(admin) -> None:
    write(admin.directory, "namespace = [")
    assert "is not valid TOML" in admin("config check").stdout
    assert "cannot be read" in admin("config check nowhere.toml").stdout
    assert admin("config check", "a", "b").returncode == USAGE
