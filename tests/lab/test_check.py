"""holdfastd --check says every error of a configuration with its place, and starts nothing.

    a file --> holdfastd --check --> exit 0, or 1 and a line for each error
"""

import json
import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOLDFASTD = os.environ.get("HOLDFASTD") or str(ROOT / "build/holdfastd")
LINK = {"name": "wifi", "interface": "wlan0"}
RULE = {"name": "r"}


@pytest.fixture
def check(tmp_path):
    """check(text or object): the exit status and the lines it said, without the file's name."""
    path = tmp_path / "holdfast.json"

    def run(config):
        path.write_text(config if isinstance(config, str) else json.dumps(config))
        done = subprocess.run([HOLDFASTD, "--check", "--config", str(path)], timeout=20,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True)  # fmt: skip
        lines = done.stderr.splitlines()
        assert all(line.startswith(str(path)) for line in lines), done.stderr
        assert done.stdout == ""
        return done.returncode, [line.removeprefix(str(path)) for line in lines]

    return run


def test_the_packaged_configuration_is_right(check):
    assert check((ROOT / "packaging/holdfast.json").read_text()) == (0, [])


def test_an_empty_configuration_is_right(check):
    assert check("{}") == (0, [])


def test_comments_are_allowed(check):
    assert check('// one\n{ /* two */ "state_dir": "/var/lib/x" // three\n}\n') == (0, [])


def test_every_error_is_said_at_once(check):
    rc, lines = check(
        {
            "links": [{"name": "a b", "interface": "x", "prio": 3}],
            "defaults": {"hold": "5 parsecs"},
            "dns": {"online": "never"},
            "nonsense": 1,
        }
    )
    assert rc == 1
    for place in ("links[0].name", "links[0].prio", "defaults.hold", "dns.online", "nonsense"):
        assert [line for line in lines if f": {place}: " in line], (place, lines)
    assert len(lines) == 5


def test_what_is_allowed_is_said(check):
    rc, lines = check({"dns": {"online": "never"}})
    assert rc == 1 and '"real"' in lines[0] and '"virtual"' in lines[0]


@pytest.mark.parametrize(
    "text, line",
    [
        ('{\n "links": [\n', 3),
        ('{ "state_dir": "/x",\n "state_dir": "/y" }', 2),
        ("{ 'state_dir': \"/x\" }", 1),
        ('{\n"queue": {"max_bytes": NaN}}', 2),
        ('{"apps": {}}\n{"apps": {}}', 2),
        ('{"apps": {},}', 1),
        ("\n\n[]", 3),
        ("", 1),
        ('{"state_dir": "/x\n"}', 1),
        ("[" * 100000, 1),
    ],
    ids=["cut-off", "twice", "quotes", "nan", "two", "comma", "list", "empty", "newline",
         "deep"],
)  # fmt: skip
def test_a_syntax_error_has_its_line(check, text, line):
    rc, lines = check(text)
    assert rc == 1 and len(lines) == 1, lines
    assert re.match(rf":{line}: ", lines[0]), lines


@pytest.mark.parametrize("path", ["\\ud800", "/a\\u0000b"], ids=["surrogate", "nul"])
def test_text_that_is_none_is_refused(check, path):
    rc, lines = check(f'{{"state_dir": "{path}"}}')
    assert rc == 1 and "state_dir" in lines[0], lines


@pytest.mark.parametrize(
    "config, place",
    [
        ({"links": [LINK, LINK]}, "links[1]"),
        ({"links": [LINK, {"name": "lte", "interface": "wlan0"}]}, "links[1].interface"),
        ({"rules": [RULE, RULE]}, "rules[1]"),
        ({"rules": [{"name": "r", "links": ["nowhere"]}]}, "rules[0].links"),
        ({"rules": [{"name": "r", "match": {"port": ["9000-8000"]}}]}, "rules[0].match.port"),
        ({"rules": [{"name": "r", "match": {"port": [70000]}}]}, "rules[0].match.port"),
        ({"rules": [{"name": "r", "match": {"address": ["300.1.1.1"]}}]}, "rules[0].match.address"),
        ({"rules": [{"name": "r", "action": "forward"}]}, "rules[0].action"),
        ({"links": [LINK | {"probe": {"interval": "1s"}}]}, "links[0].probe"),
        ({"links": [LINK | {"probe": {"url": "ftp://x/"}}]}, "links[0].probe.url"),
        ({"links": [LINK | {"dns": ["not-an-address"]}]}, "links[0].dns"),
        ({"apps": {"interfaces": ["wlan0"]}, "links": [LINK]}, "apps.interfaces"),
        ({"queue": {"max_bytes": "1M", "max_request": "2M"}}, "queue.max_request"),
        ({"queue": {"max_bytes": -1}}, "queue.max_bytes"),
        ({"dns": {"virtual": {"ipv4": "198.18.0.0/30"}}}, "dns.virtual.ipv4"),
        ({"dns": {"virtual": {"ipv6": "fd5a::/16", "ttl": "0s"}}}, "dns.virtual.ttl"),
        ({"guard": {"allow": [{"local_port": 22}]}}, "guard.allow[0]"),
        ({"api": {"listen": ["127.0.0.1"]}}, "api.listen"),
        ({"api": {"token_file": "relative"}}, "api.token_file"),
        ({"defaults": {"name": "x"}}, "defaults.name"),
        ({"apps": {"host": "yes"}}, "apps.host"),
        ({"links": {}}, "links"),
    ],
)
def test_what_does_not_fit_is_said_with_its_key(check, config, place):
    rc, lines = check(config)
    assert rc == 1 and lines
    assert any(f": {place}" in line for line in lines), lines


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    done = subprocess.run([HOLDFASTD, "--check", "--config", str(tmp_path / "none")],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 1 and "No such file" in done.stderr


def test_a_daemon_with_a_wrong_configuration_does_not_start(tmp_path):
    path = tmp_path / "wrong.json"
    path.write_text('{"nonsense": 1}')
    done = subprocess.run([HOLDFASTD, "--config", str(path)], timeout=20,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 1 and "nonsense" in done.stderr


def test_the_version_is_told():
    done = subprocess.run([HOLDFASTD, "--version"], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0 and re.fullmatch(r"holdfastd \d+\.\d+\.\d+\n", done.stdout)


def test_an_unknown_option_is_refused():
    done = subprocess.run([HOLDFASTD, "--nonsense"], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 2 and "usage" in done.stderr
