"""Apps that speak http reach origins that speak https, and no others.

    app --http-- device --https, its certificate verified-- cloud: tls_origin.py, nginx, s_server
"""

import functools
import json
import pathlib
import socket
import ssl
import struct
import subprocess
import sys

import pytest

import websocket
from authority import Authority, openssl, self_signed
from harness import wait_until
from hears import connect, listen, metric, offline, problem, read_all, stored_id, talk
from hears import wait_held, wait_state
from hears import hears  # noqa: F401 (fixture)
from network import LINKS, ORIGIN
from rawhttp import fields, origin

HERE = pathlib.Path(__file__).resolve().parent
GOOD = "http://good.many.example"
S_SERVER = 8450  # TLS 1.1 alone
H2_SERVER, WRONG_SERVER = 8451, 8452


def config(folder):
    secure = {"upstream_tls": True}
    client = {"client_certificate": f"{folder}/device.pem", "client_key": f"{folder}/device.pem"}
    tests, cloud = {"upstream_ca": f"{folder}/ca.pem"}, {"upstream_ca": f"{folder}/cloud.pem"}
    return {
        "defaults": {"hold": "400ms"},
        "rules": [
            {"name": "mutual", "match": {"host": ["mutual.many.example"]},
             **secure, **tests, **client},
            {"name": "once", "match": {"path": ["/once"]}, "attempts": 1, **secure, **tests},
            {"name": "device", "match": {"path": ["/device*"]}, **secure, **tests, **client},
            {"name": "stalled", "match": {"port": [8446]}, "links": ["wifi"], **secure, **tests},
            {"name": "nginx", "match": {"host": ["tls.example"]}, **secure, **cloud},
            {"name": "long", "match": {"path": ["/long*"]}, "hold": "20s", **secure, **tests},
            {"name": "system", "match": {"host": ["system.many.example"]}, **secure},
            {"name": "literal", "match": {"path": ["/literal*"]}, **secure, **tests},
            {"name": "ours", "match": {"host": ["*.many.example"]}, **secure, **tests},
        ],
    }  # fmt: skip


class Origins:
    """What tls_origin.py shows; made anew by a test that wants something else."""

    def __init__(self, folder):
        self.shown = folder / "shown"
        self.shown.mkdir(parents=True)
        self.authority = Authority(folder)
        self.other = Authority(folder, "other")
        self.other.issue(self.at("other"), "other", "DNS:other.many.example")
        names = "DNS:*.many.example,IP:" + ",IP:".join(ORIGIN)
        self.issue("any", names)
        self.issue("expired", begins=-7200, ends=-3600)
        self.issue("early", begins=3600)
        self.issue("client", usage="clientAuth")
        self.issue("partial", "DNS:part*.many.example")
        self.issue("wrong", "DNS:right.many.example")
        self.issue("unnamed", None)
        self_signed(self.at("alone"), "alone.many.example")

    def at(self, name):
        return self.shown / (f"{name}.many.example.pem" if name != "any" else "any.pem")

    def issue(self, name, names="", **more):
        names = f"DNS:{name}.many.example" if names == "" else names
        self.authority.issue(self.at(name), f"{name}.many.example", names, **more)


@pytest.fixture(scope="module")
def origins(lab):
    folder = lab.folder / "tls"
    origins = Origins(folder)
    origins.authority.issue(folder / "device.pem", "device 7", usage="clientAuth")
    (folder / "ca.pem").write_text(origins.authority.pem.read_text())
    (folder / "cloud.pem").write_text((lab.cloud.folder / "ca.pem").read_text())
    any_pem, ca = origins.at("any"), origins.authority.pem
    lab.cloud.start("tls-origin", sys.executable, HERE / "tls_origin.py", lab.cloud.record,
                    origins.shown, ca, ORIGIN[0], f"[{ORIGIN[1]}]")  # fmt: skip
    lab.cloud.start("s_server", "openssl", "s_server", "-accept", f"{ORIGIN[0]}:{S_SERVER}",
                    "-cert", any_pem, "-key", any_pem, "-tls1_1", "-cipher",
                    "DEFAULT@SECLEVEL=0", "-quiet", "-www")  # fmt: skip
    for port, shown, *more in ((H2_SERVER, any_pem, "-alpn", "h2"),
                               (WRONG_SERVER, origins.at("wrong"))):  # fmt: skip
        lab.cloud.start(f"s_server-{port}", "openssl", "s_server", "-accept",
                        f"{ORIGIN[0]}:{port}", "-cert", shown, "-key", shown, "-quiet", "-www",
                        *more)  # fmt: skip
    ready = lab.cloud.folder / "tls-origin.out"
    wait_until("the TLS origin listens", lambda: ready.exists() and "ready" in ready.read_text())
    return origins


@pytest.fixture(scope="module")
def shared(lab, origins):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(origins.authority.pem))
        lab.start_daemon(config(lab.folder / "tls"), fresh=True)
    lab.told = lab.start("device", "curl", "-siN", "http://127.0.0.1:7080/v1/events")
    wait_until("events are heard", lambda: "200 OK" in events(lab))
    yield lab
    lab.told.kill()
    rc = lab.stop_daemon()
    assert rc == 0, f"the daemon stopped with {rc}\n{lab.log()}"


def events(lab):
    return lab.told.out.read_text() if lab.told.out.exists() else ""


def told(lab, *words):
    return any("event: request" in event and all(word in event for word in words)
               for event in events(lab).split("\n\n"))  # fmt: skip


def rejected(lab, url, *words, data=("-4",)):
    """502 with these words, told as an event and counted once: no other way is tried, and nothing
    arrives."""
    before, received = metric(lab, "upstream_tls_rejected_total"), len(lab.origin_log())
    detail = problem(lab.curl("app", url, *data), 502)["detail"]
    assert all(word in detail for word in words), detail
    wait_until("told as an event", lambda: told(lab, *words))
    assert metric(lab, "upstream_tls_rejected_total") == before + 1
    assert len(lab.origin_log()) == received


# --- what works ---


def test_an_app_that_speaks_http_gets_https(hears):
    answer = hears.curl("app", f"{GOOD}/hello?a=b", "-4")
    assert (answer.status, answer.json()["path"]) == (200, "/hello?a=b")
    (entry,) = hears.origin_log("/hello?a=b")
    assert (entry["sni"], entry["alpn"]) == ("good.many.example", "http/1.1")
    assert entry["version"] == "TLSv1.3" and entry["name"] is None
    assert entry["headers"]["host"] == "good.many.example"


def test_nginx_with_http2_is_spoken_to_in_http1(hears):
    assert hears.curl("app", "http://tls.example/1k").body == b"0123456789abcdef" * 64
    assert '"GET /1k HTTP/1.1" 200' in (hears.cloud.folder / "nginx.log").read_text()


def test_the_connection_is_kept_and_used_again(hears):
    before = metric(hears, "upstream_tls_handshakes_total")
    for n in range(3):
        assert hears.curl("app", f"{GOOD}/kept/{n}", "-4").status == 200
    assert metric(hears, "upstream_tls_handshakes_total") <= before + 1


@pytest.mark.parametrize("port", ["", ":8442"], ids=["TLS 1.3", "TLS 1.2"])
def test_a_new_connection_resumes_the_session(hears, port):
    before = metric(hears, "upstream_tls_resumed_total")
    path = f"/ended?{port}"
    for _ in range(3):
        assert hears.curl("app", GOOD + port + path, "-4", "-d", "x").status == 200
    assert [entry["reused"] for entry in hears.origin_log(path)][1:] == [True, True]
    assert metric(hears, "upstream_tls_resumed_total") >= before + 2


def test_a_rule_gives_the_device_s_certificate(hears):
    assert hears.curl("app", "http://mutual.many.example:8441/mutual", "-4").status == 200
    assert hears.origin_log("/mutual")[0]["name"] == "device 7"
    assert hears.origin_log("/mutual")[0]["headers"]["host"] == "mutual.many.example:8441"


def test_the_certificate_of_one_rule_is_not_shown_for_another(hears):
    rejected(hears, f"{GOOD}:8441/mutual-not", "the origin refuses: certificate required")


def test_the_system_s_authorities_hold_where_a_rule_names_none(hears):
    assert hears.curl("app", "http://system.many.example/system", "-4").status == 200
    assert hears.curl("app", f"{GOOD}/system", "-4").status == 200


@pytest.mark.parametrize("family", [0, 1], ids=["IPv4", "IPv6"])
def test_an_address_must_be_in_the_certificate(hears, family):
    address = ORIGIN[family] if family == 0 else f"[{ORIGIN[family]}]"
    answer = hears.curl("app", f"http://{address}/literal/{family}")
    assert answer.status == 200
    assert hears.origin_log(f"/literal/{family}")[0]["sni"] is None


def test_large_bodies_go_both_ways(hears, tmp_path):
    body = bytes(range(256)) * 40000
    (tmp_path / "body").write_bytes(body)
    answer = hears.curl("app", f"{GOOD}/echo", "-4", "--data-binary", f"@{tmp_path}/body",
                        "-H", "Expect:")  # fmt: skip
    assert answer.status == 200 and answer.body == body
    assert hears.curl("app", f"{GOOD}/big/30000000", "-4").body.count(b"\xff") == 30000000 // 256


def test_a_slow_reader_slows_the_origin_and_gets_all(hears):
    answer = hears.curl("app", f"{GOOD}/big/3000000", "-4", "--limit-rate", "2M")
    assert len(answer.body) == 3000000


def test_a_slow_handshake_is_waited_for(hears):
    answer = hears.curl("app", f"{GOOD}:8444/slow", "-4")
    assert answer.status == 200 and answer.seconds >= 1


def test_many_requests_at_once_each_get_their_own_answer(hears):
    curls = [hears.curl_start("app", f"{GOOD}/at-once/{n}", "-4") for n in range(12)]
    assert [curl.wait().json()["path"] for curl in curls] == [f"/at-once/{n}" for n in range(12)]


def test_a_websocket_goes_through_tls(hears, origins):
    def speak(peer, head):
        websocket.serve_echo(peer, head)
        peer.unwrap()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(origins.at("any"))
    wrap, at = functools.partial(context.wrap_socket, server_side=True), (ORIGIN[0], 8460)
    with origin(hears, speak, *at, wrap=wrap) as got, connect(hears, *at) as app:
        websocket.shake_hands(app, "good.many.example:8460", websocket.frame(b"eager"))
        assert websocket.read_frame(app)[1] == b"eager"
        large = bytes(range(256)) * 4096
        app.sendall(websocket.frame(large))
        assert websocket.read_frame(app)[1] == large
        app.sendall(websocket.frame(b"", websocket.CLOSE))
        assert websocket.read_frame(app)[0] == websocket.CLOSE
        assert app.recv(1) == b""
    assert fields(got[0])["host"] == ["good.many.example:8460"]


def test_an_https_uri_as_target_goes_where_a_rule_says_tls(hears):
    asks = "GET https://{}/absolute HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    said = talk(hears, asks.format("good.many.example").encode(), ORIGIN[0])
    assert said.startswith(b"HTTP/1.1 200 ")
    (entry,) = hears.origin_log("/absolute")
    assert (entry["sni"], entry["headers"]["host"]) == ("good.many.example",) * 2
    said = talk(hears, asks.format("plain.example").encode(), ORIGIN[0])
    assert said.startswith(b"HTTP/1.1 421 ") and b"upstream_tls" in said
    assert len(hears.origin_log("/absolute")) == 1


# --- sessions are of one origin, and of one set of files ---


@pytest.mark.parametrize("version", ["TLS 1.3", "TLS 1.2"])
def test_a_session_is_of_one_name_and_port(hears, version):
    def reused(name, port):
        path = f"/ended?{name}{port}"
        assert hears.curl("app", f"http://{name}.many.example{port}{path}", "-4").status == 200
        return hears.origin_log(path)[-1]["reused"]

    first, other = ("", ":8447") if version == "TLS 1.3" else (":8442", "")
    names = [f"{letter}{first.strip(':')}" for letter in "ab"]
    assert [reused(names[0], first) for _ in range(2)] == [False, True]
    assert not reused(names[1], first)
    assert not reused(names[0], other)
    assert reused(names[0], first)


def test_a_session_is_of_one_client_certificate(hears):
    """Resumed with the device's certificate, a session would prove it without a rule."""

    def seen(path):
        url = f"http://whose.many.example:8447{path}"
        assert hears.curl("app", url, "-4").status == 200
        entry = hears.origin_log(path)[-1]
        return entry["name"], entry["reused"]

    as_device, as_nobody = "/device/ended", "/ended?nobody"
    assert [seen(as_nobody) for _ in range(2)] == [(None, False), (None, True)]
    assert seen(as_device) == ("device 7", False)
    assert seen(as_nobody) == (None, True)


def test_a_kept_connection_is_of_one_client_certificate(hears):
    names = []
    for path in ("/device/kept", "/nobody/kept", "/device/kept", "/nobody/kept"):
        assert hears.curl("app", f"http://kept.many.example:8447{path}", "-4").status == 200
        names.append(hears.origin_log(path)[-1]["name"])
    assert names == ["device 7", None] * 2


# --- what is refused ---


@pytest.mark.parametrize("name, words", [
    ("expired", "certificate has expired"),
    ("early", "certificate is not yet valid"),
    ("client", "unsuitable certificate purpose"),
    ("wrong", "hostname mismatch"),
    ("partial", "hostname mismatch"),
    ("unnamed", "hostname mismatch"),
    ("alone", "self-signed certificate"),
    ("other", "unable to get local issuer certificate"),
])  # fmt: skip
def test_a_bad_certificate_is_502_with_the_reason(hears, name, words):
    rejected(hears, f"http://{name}.many.example/bad", words, name, data=["-4", "-d", "secret"])


def test_an_old_version_of_tls_is_refused(hears):
    rejected(hears, f"{GOOD}:{S_SERVER}/", "the origin refuses: protocol version")


def test_an_origin_that_speaks_only_http2_is_refused(hears):
    rejected(hears, f"{GOOD}:{H2_SERVER}/", "the origin refuses: no application protocol")


def test_an_address_that_the_certificate_does_not_hold_is_refused(hears):
    rejected(hears, f"http://{ORIGIN[0]}:{WRONG_SERVER}/literal", "IP address mismatch")


def test_a_stalled_handshake_ends_as_a_connection_that_failed(hears):
    """Nobody is accused: nothing was said. No other link is allowed, and the hold is over."""
    before = metric(hears, "upstream_tls_rejected_total")
    answer = hears.curl("app", f"{GOOD}:8446/stalled", "-4")
    assert problem(answer, 504) and answer.seconds >= 10
    assert metric(hears, "upstream_tls_rejected_total") == before


def test_a_handshake_ends_with_its_link_and_with_its_app(hears):
    """The next link takes it, as nothing was sent; when the app goes, so does it."""
    at = (ORIGIN[0], 8461)
    with listen(hears, *at) as server, connect(hears, *at) as app:
        app.sendall(b"GET /cut HTTP/1.1\r\nHost: good.many.example:8461\r\n\r\n")
        with server.accept()[0] as first:
            assert first.recv(1) == b"\x16" and first.getpeername()[0] in LINKS["wifi"]["address"]
            hears.cut("wifi")
            with server.accept()[0] as second:
                assert second.getpeername()[0] in LINKS["lte"]["address"]
                app.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                app.close()
                second.settimeout(15)
                read_all(second)


@pytest.mark.parametrize("port", [8443, 8080], ids=["garbage", "plain HTTP"])
def test_what_is_no_tls_is_refused(hears, port):
    rejected(hears, f"{GOOD}:{port}/no-tls", "the origin does not speak TLS")


def test_a_response_that_ends_with_the_connection_must_end_in_tls(hears):
    whole = hears.curl("app", f"{GOOD}/ended", "-4")
    assert (whole.rc, whole.body) == (0, b"all of it\n")
    cut = hears.curl("app", f"{GOOD}/cut", "-4")
    assert cut.rc != 0, cut
    length = hears.curl("app", f"{GOOD}/cut-length", "-4")
    assert (length.rc, length.body) == (0, b"all of it\n")


def test_a_reset_in_the_handshake_moves_to_the_next_link(hears):
    assert hears.curl("app", f"{GOOD}:8445/moved", "-4").status == 200
    assert hears.origin_log("/moved")[0]["link"] == "lte"


# --- held, stored, replayed ---


def test_a_held_request_goes_over_tls_once_there_is_a_link(hears):
    offline(hears)
    curl = hears.curl_start("app", f"{GOOD}/long", "-d", "x")
    (row,) = wait_held(hears)
    assert row["url"] == "https://good.many.example/long"
    hears.restore("wifi", wait=False)
    assert curl.wait().status == 200
    assert hears.origin_log("/long")[0]["sni"] == "good.many.example"


def test_a_stored_request_is_replayed_over_tls_and_pays_its_debt(hears):
    offline(hears)
    request_id = stored_id(hears.curl("app", f"{GOOD}/stored", "-d", "x"))
    assert hears.get(f"/v1/requests/{request_id}")["url"] == "https://good.many.example/stored"
    hears.restore("wifi", wait=False)
    wait_state(hears, request_id, "done")
    (entry,) = hears.origin_log("/stored")
    assert (entry["sni"], entry["body"]) == ("good.many.example", b"x")
    answer = hears.curl("app", f"{GOOD}/stored", "-4", "-d", "x")
    assert answer.headers["holdfast-id"] == request_id
    assert len(hears.origin_log("/stored")) == 1


def attempts(lab, request_id, n, words):
    row = lab.get(f"/v1/requests/{request_id}")
    return row["attempts"] >= n and any(words in event["what"] for event in row["events"])


def test_a_stored_one_waits_for_a_certificate_that_holds(hears, origins):
    """Also a device whose clock is slow: not yet valid, and later it is."""
    origins.issue("later", begins=600)
    offline(hears)
    url = "http://later.many.example/later"
    request_id = stored_id(hears.curl("app", url, "-d", "secret"))
    hears.restore("wifi", wait=False)
    wait_until("an attempt failed", lambda: attempts(
        hears, request_id, 1, "certificate is not yet valid"), 15)  # fmt: skip
    assert hears.origin_log("/later") == []
    assert hears.get(f"/v1/requests/{request_id}")["state"] in ("stored", "sending")
    problem(hears.curl("app", "http://later.many.example/other", "-4"), 502)
    origins.issue("later", begins=-5)
    wait_state(hears, request_id, "done")
    assert [entry["body"] for entry in hears.origin_log("/later")] == [b"secret"]


def test_a_stored_one_fails_when_its_attempts_are_used_up(hears):
    """Each rejection is one attempt, counted, and none goes out in the clear."""
    offline(hears)
    before = metric(hears, "upstream_tls_rejected_total")
    request_id = stored_id(hears.curl("app", "http://alone.many.example/once", "-d", "secret"))
    hears.restore("wifi", wait=False)
    wait_state(hears, request_id, "failed")
    assert attempts(hears, request_id, 1, "self-signed certificate")
    assert hears.get(f"/v1/requests/{request_id}")["attempts"] == 1
    assert metric(hears, "upstream_tls_rejected_total") == before + 1
    assert hears.origin_log("/once") == []


def test_a_url_of_https_can_be_handed_over(hears):
    handed = {"method": "POST", "url": "https://good.many.example/handed", "body": "x"}
    status, row = hears.api("POST", "/v1/requests", handed)
    assert status == 202
    wait_state(hears, row["id"], "done")
    assert hears.get(f"/v1/requests/{row['id']}")["url"] == handed["url"]
    assert hears.origin_log("/handed")[0]["version"] == "TLSv1.3"


def test_a_plain_url_is_handed_over_as_its_rule_says(hears):
    handed = {"method": "POST", "url": f"{GOOD}/handed-plain", "body": "x"}
    status, row = hears.api("POST", "/v1/requests", handed)
    assert status == 202
    wait_state(hears, row["id"], "done")
    url = hears.get(f"/v1/requests/{row['id']}")["url"]
    assert url == "https://good.many.example/handed-plain"
    assert hears.origin_log("/handed-plain")[0]["sni"] == "good.many.example"


def test_a_portal_that_answers_tls_gets_nothing(hears, origins):
    """The probe is answered, names lead to somebody else."""
    offline(hears)
    request_id = stored_id(hears.curl("app", "http://alone.many.example/portal", "-d", "secret"))
    hears.restore("wifi", wait=False)
    wait_until("an attempt failed", lambda: attempts(
        hears, request_id, 1, "self-signed certificate"), 15)  # fmt: skip
    assert hears.origin_log("/portal") == []


# --- files that are no good ---


def test_files_that_are_no_good_are_said_before_anything_starts(lab, origins, tmp_path):
    """Each with its key, by --check, and by a start that does not happen."""
    mine, other = tmp_path / "mine.pem", tmp_path / "other.pem"
    for path in (mine, other):
        origins.authority.issue(path, path.stem, usage="clientAuth")
    locked, words = tmp_path / "locked.pem", tmp_path / "words.pem"
    openssl("pkey", "-in", mine, "-aes256", "-passout", "pass:x", "-out", locked)
    words.write_text("no certificate\n")
    certificate, key, ca = "client_certificate", "client_key", "upstream_ca"
    cases = [
        ({certificate: mine, key: other}, key, "this key does not belong to the certificate"),
        ({certificate: mine, key: locked}, key, "no private key in PEM without a password"),
        ({certificate: mine, key: words}, key, "no private key in PEM"),
        ({certificate: words, key: mine}, certificate, "no certificate in PEM"),
        ({certificate: mine, key: tmp_path / "none"}, key, "No such file"),
        ({certificate: mine}, certificate, "client_key too"),
        ({ca: words}, ca, "no certificate in PEM"),
        ({ca: tmp_path}, ca, "not a file"),
    ]
    path = tmp_path / "holdfast.json"
    for files, wrong, reason in cases:
        rule = {"name": "r", "upstream_tls": True, **{k: str(v) for k, v in files.items()}}
        path.write_text(json.dumps({"state_dir": str(tmp_path), "rules": [{"name": "a"}, rule]}))
        for check in (["--check"], []):
            command = [*lab.network.enter("device"), lab.holdfastd, *check, "--config", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
            assert done.returncode == 1, (files, done)
            assert f"rules[1].{wrong}" in done.stderr and reason in done.stderr, (files, done)
