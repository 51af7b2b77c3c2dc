"""Where a request goes: every form of a target, Host, and who is not to forward it.

    app ---- device ==wifi== cloud: an origin of bare sockets at PORT and at 80 of IPv6
"""

import pytest

from hears import metric, offline, talk, wait_state
from hears import hears, shared  # noqa: F401 (fixtures)
from network import ORIGIN
from rawhttp import PORT, fields, origin

CONFIG = {
    "defaults": {"hold": "500ms"},
    "rules": [{"name": "ruled", "match": {"host": ["ruled.example"]}, "action": "reject"}],
}
END = "Connection: close\r\n\r\n"


def ask(lab, line, host="a.example", version="1.1", more="", to=0, port=PORT):
    """(status, what was said)"""
    host = "" if host is None else f"Host: {host}\r\n"
    sent = f"{line} HTTP/{version}\r\n{host}{more}{END}"
    said = talk(lab, sent.encode(), ORIGIN[to], port)
    return int(said.split(b" ")[1]), said


FORWARDED = {  # line, Host: line, Host at the origin
    ("GET /a?b", "a.example"): ("GET /a?b", "a.example"),
    ("GET //a", "a.example"): ("GET //a", "a.example"),
    ("GET /a:b@c", "A.Example"): ("GET /a:b@c", "A.Example"),
    ("GET /", "a_b.example."): ("GET /", "a_b.example."),
    ("GET /", "a.example:99"): ("GET /", "a.example:99"),
    ("GET /", "a.example:"): ("GET /", "a.example:"),
    ("GET /", "[2001:db8::1]"): ("GET /", "[2001:db8::1]"),
    ("GET /", "[2001:DB8::1]:80"): ("GET /", "[2001:DB8::1]:80"),
    ("GET http://b.example/p?q", "a.example"): ("GET /p?q", "b.example"),
    ("GET HTTP://b.example:8080/", "a.example"): ("GET /", "b.example:8080"),
    ("GET http://b.example", "a.example"): ("GET /", "b.example"),
    ("GET http://b.example?q=/", "a.example"): ("GET /?q=/", "b.example"),
    ("GET http://[2001:db8::2]:80/x", "a.example"): ("GET /x", "[2001:db8::2]:80"),
    ("OPTIONS *", "a.example"): ("OPTIONS *", "a.example"),
    ("OPTIONS http://b.example", "a.example"): ("OPTIONS *", "b.example"),
    ("OPTIONS http://b.example/", "a.example"): ("OPTIONS /", "b.example"),
    ("OPTIONS http://b.example?q", "a.example"): ("OPTIONS /?q", "b.example"),
    ("BREW /pot", "a.example"): ("BREW /pot", "a.example"),
    ("M-SEARCH /", "a.example"): ("M-SEARCH /", "a.example"),
}


def test_the_origin_gets_the_origin_form_and_the_authority_that_was_asked_for(hears):
    with origin(hears) as got:
        for (line, host), (at_origin, host_there) in FORWARDED.items():
            status, said = ask(hears, line, host)
            assert status == 200, (line, host, said)
            assert got[-1].startswith(f"{at_origin} HTTP/1.1\r\n".encode()), (line, got[-1])
            assert fields(got[-1])["host"] == [host_there], (line, got[-1])
    assert len(got) == len(FORWARDED)


def test_http_1_0_without_host_gets_the_address_that_it_dialed(hears):
    with origin(hears) as got:
        assert ask(hears, "GET /", None, "1.0")[0] == 200
    assert fields(got[0])["host"] == [f"{ORIGIN[0]}:{PORT}"]
    with origin(hears, address=ORIGIN[1]) as got:
        assert ask(hears, "GET /", None, "1.0", to=1)[0] == 200
        assert ask(hears, "GET http://b.example/", None, "1.0", to=1)[0] == 200
    assert fields(got[0])["host"] == [f"[{ORIGIN[1]}]:{PORT}"]
    assert fields(got[1])["host"] == ["b.example"]


REFUSED = {
    400: [
        *(("GET /", host) for host in (
            "", "a:b", "a.example:99999", "a.example:0", "a.example:+80", "a.example:80x", ":80",
            "a example", "a.example/x", "a@b.example", "a,b", "a..example", ".a.example", ".",
            "[2001:db8::1", "2001:db8::1", "[2001:db8::1]x", "[192.0.2.1]", "[2001:db8::g]",
            "[fe80::1%25eth0]", "[]", "a%2eexample", "a\u00e4.example", "x" * 254)),
        *((line, "a.example") for line in (
            "GET *", "POST *", "GET http:///x", "GET http://", "GET http://u@b.example/",
            "GET http://u:p@b.example/", "GET http://b.example:x/", "GET http://b.example:70000/",
            "GET http://[::1/", "GET hxxp://b.example/", "GET http:/b.example/", "OPTIONS *x",
            "GET http://b.example%2f@c/")),
        ("GET http://b.example/", "a..b"), ("GET http://b.example/", ""),
    ],
    421: [("GET https://b.example/", "b.example")],
    405: [("CONNECT a.example:443", "a.example:443"), ("CONNECT /", "a.example")],
    403: [("GET /", "Ruled.Example."), ("GET http://RULED.example:81/", "a.example")],
}  # fmt: skip


def test_what_names_no_place_is_refused(hears):
    before = metric(hears, "bad_requests_total")
    with origin(hears) as got:
        for wanted, cases in REFUSED.items():
            for line, host in cases:
                status, said = ask(hears, line, host)
                assert status == wanted, (line, host, said)
                assert b"application/problem+json" in said and b"\r\nConnection: close" in said
        assert got == []
    refused = sum(len(REFUSED[status]) for status in (400, 405))
    assert metric(hears, "bad_requests_total") == before + refused


def test_two_hosts_are_refused_and_so_is_none(hears):
    with origin(hears) as got:
        for more in ("Host: a.example\r\n", "Host: b.example\r\n", "host:\r\n"):
            assert ask(hears, "GET /", more=more)[0] == 400
        for line in ("GET /", "GET http://a.example/"):
            assert ask(hears, line, None)[0] == 400
        assert got == []


def test_ipv6_apps_reach_ipv6_origins(hears):
    with origin(hears, address=ORIGIN[1]) as got:
        for host in (f"[{ORIGIN[1]}]", f"[{ORIGIN[1]}]:{PORT}", "a.example"):
            assert ask(hears, "GET /six", host, to=1)[0] == 200
            assert fields(got[-1])["host"] == [host]


def test_at_a_virtual_address_the_authority_must_be_its_name(hears):
    offline(hears)
    virtual = hears.dig("app", "origin.example")[0]
    cases = {
        ("GET /", "origin.example"): b"504",
        ("GET /", "ORIGIN.example.:80"): b"504",
        ("GET http://origin.example/", "other.example"): b"504",
        ("GET http://other.example/", "origin.example"): b"421",
        ("GET /", "other.example"): b"421",
        ("GET /", virtual): b"421",
    }
    for (line, host), status in cases.items():
        said = talk(hears, f"{line} HTTP/1.1\r\nHost: {host}\r\n{END}".encode(), virtual)
        assert said.split(b" ")[1] == status, (line, host, said)
    assert talk(hears, b"GET / HTTP/1.0\r\n\r\n", virtual).split(b" ")[1] == b"504"


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE"])
def test_max_forwards_is_counted_down(hears, method):
    counts = {"1": "0", "10": "9", "007": "6", "123456789012345678": "123456789012345677"}
    with origin(hears) as got:
        for sent, there in counts.items():
            assert ask(hears, f"{method} /", more=f"Max-Forwards: {sent}\r\n")[0] == 200
            assert fields(got[-1])["max-forwards"] == [there]
        for bad in ("-1", "x", "", "1, 2", "1\r\nMax-Forwards: 1", "9" * 30):
            assert ask(hears, f"{method} /", more=f"Max-Forwards: {bad}\r\n")[0] == 400
    assert len(got) == len(counts)


def test_max_forwards_of_other_methods_is_none_of_ours(hears):
    with origin(hears) as got:
        assert ask(hears, "GET /", more="Max-Forwards: 0\r\n")[0] == 200
    assert fields(got[0])["max-forwards"] == ["0"]


@pytest.mark.parametrize("online", [True, False])
def test_the_last_recipient_is_the_proxy_when_max_forwards_is_0(hears, online):
    if not online:
        offline(hears)
    zero = "Max-Forwards: 0\r\n"
    with origin(hears) as got:
        status, said = ask(hears, "OPTIONS *", more=zero)
        assert status == 200 and said.endswith(b"\r\n\r\n")
        assert "GET" in fields(said)["allow"][0] and fields(said)["content-length"] == ["0"]
        secret = "Authorization: Bearer s3cret\r\nCookie: s3cret\r\nX-Seen: yes\r\n"
        status, said = ask(hears, "TRACE /t", more=zero + secret)
        head, body = said.split(b"\r\n\r\n", 1)
        assert status == 200 and fields(head)["content-type"] == ["message/http"]
        assert fields(head)["content-length"] == [str(len(body))]
        assert body.startswith(b"TRACE /t HTTP/1.1\r\n") and b"s3cret" not in body
        assert fields(body)["x-seen"] == ["yes"] and fields(body)["host"] == ["a.example"]
    assert got == []


@pytest.mark.parametrize("host", [f"[{ORIGIN[1]}]:{PORT}", "[2001:DB8:CAFE:0:0::9]"])
def test_what_is_stored_for_an_ipv6_address_is_sent_there(hears, host):
    offline(hears)
    more = "Prefer: respond-async\r\n"
    status, said = ask(hears, "POST /stored-six", host, more=more, to=1)
    assert status == 202
    request_id = fields(said)["location"][0].rpartition("/")[2]
    url = hears.get(f"/v1/requests/{request_id}")["url"]
    assert url == f"http://[{ORIGIN[1]}]:{PORT}/stored-six"
    with origin(hears, address=ORIGIN[1]) as got:
        hears.restore("wifi")
        wait_state(hears, request_id, "done")
    assert fields(got[0])["host"] == [host]
