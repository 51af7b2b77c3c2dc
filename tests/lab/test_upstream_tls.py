"""Apps that speak http reach origins that speak https, and no others.

    app --http-- device --https, its certificate verified-- cloud: tls_origin.py, nginx, s_server
"""

import pathlib
import subprocess
import sys

import pytest

from authority import Authority, self_signed
from harness import wait_until
from hears import App, metric, offline, problem, stored_id, wait_held, wait_received, wait_state
from hears import hears  # noqa: F401 (fixture)
from network import ORIGIN

HERE = pathlib.Path(__file__).resolve().parent
GOOD = "http://good.many.example"
S_SERVER = 8450


def config(folder):
    secure = {"upstream_tls": True}
    client = {"client_certificate": f"{folder}/device.pem", "client_key": f"{folder}/device.pem"}
    tests, cloud = {"upstream_ca": f"{folder}/ca.pem"}, {"upstream_ca": f"{folder}/cloud.pem"}
    return {
        "defaults": {"hold": "400ms"},
        "rules": [
            {"name": "mutual", "match": {"host": ["mutual.many.example"]},
             **secure, **tests, **client},
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


# --- what is refused ---


@pytest.mark.parametrize("name, words", [
    ("expired", "certificate has expired"),
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
