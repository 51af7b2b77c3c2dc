"""Malformed HTTP gets 400 and never reaches the origin; the daemon lives.

    app ---- device ==wifi== cloud: origin.example
"""

import pytest

from hears import App, connect, metric, read_all, talk
from hears import hears, shared  # noqa: F401 (fixtures)
from network import ORIGIN

CONFIG = {"defaults": {"hold": "1s"}}
HOST = b"Host: origin.example\r\n"
BAD = {
    "both lengths": b"POST / HTTP/1.1\r\n%sContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\n%sContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "length list": b"POST / HTTP/1.1\r\n%sContent-Length: 5, 6\r\n\r\nhello",
    "negative length": b"POST / HTTP/1.1\r\n%sContent-Length: -1\r\n\r\n",
    "length that overflows": b"POST / HTTP/1.1\r\n%sContent-Length: 99999999999999999999\r\n\r\n",
    "signed length": b"POST / HTTP/1.1\r\n%sContent-Length: +5\r\n\r\nhello",
    "two hosts": b"GET / HTTP/1.1\r\n%sHost: other.example\r\n\r\n",
    "bad host": b"GET / HTTP/1.1\r\nHost: origin.example/path\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: origin.example\n\n",
    "bare carriage return": b"GET / HTTP/1.1\r\n%sX: a\rY: b\r\n\r\n",
    "folded field": b"GET / HTTP/1.1\r\n%sX: a\r\n b\r\n\r\n",
    "space before colon": b"GET / HTTP/1.1\r\n%sX : a\r\n\r\n",
    "nul in a field": b"GET / HTTP/1.1\r\n%sX: a\0b\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\n%snonsense\r\n\r\n",
    "space in target": b"GET /a b HTTP/1.1\r\n%s\r\n",
    "length with a space": b"POST / HTTP/1.1\r\n%sContent-Length : 5\r\n\r\nhello",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "bad chunk size": b"POST / HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
    "chunk size that overflows": b"POST / HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n"
    b"fffffffffffffffff\r\n",
    "chunk that is too long": b"POST / HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\nhello\r\n0\r\n\r\n",
    "unknown coding": b"POST / HTTP/1.1\r\n%sTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "coding in http/1.0": b"POST / HTTP/1.0\r\n%sTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD)
def test_a_malformed_request_gets_400_and_the_end(hears, name):
    sent = BAD[name].replace(b"%s", HOST)
    before = len(hears.origin_log())
    got = talk(hears, sent, timeout=5)
    assert got.startswith(b"HTTP/1.1 400 "), got[:200]
    assert b"connection: close" in got.lower() and b"application/problem+json" in got
    assert got.count(b"HTTP/1.1 ") == 1
    assert len(hears.origin_log()) == before


def test_another_version_of_http_gets_505(hears):
    for version in (b"9.9", b"1.2", b"2.0"):
        got = talk(hears, b"GET / HTTP/" + version + b"\r\n" + HOST + b"\r\n", timeout=5)
        assert got.startswith(b"HTTP/1.1 505 "), got[:200]


def test_a_target_that_is_too_long_gets_414(hears):
    got = talk(hears, b"GET /" + b"y" * 20000 + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    assert got.startswith(b"HTTP/1.1 414 "), got[:200]


def test_a_coding_that_is_not_known_gets_501(hears):
    sent = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"
    assert talk(hears, sent).startswith(b"HTTP/1.1 501 ")


def test_a_head_that_is_too_large_gets_431(hears):
    got = talk(hears, b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 100000 + b"\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 431 "), got[:200]


def test_too_many_fields_get_431(hears):
    fields = b"".join(b"X-%d: y\r\n" % n for n in range(1000))
    got = talk(hears, b"GET / HTTP/1.1\r\n" + HOST + fields + b"\r\n")
    assert got.startswith(b"HTTP/1.1 431 "), got[:200]


def test_a_malformed_second_request_does_not_spoil_the_first(hears):
    got = talk(hears, b"GET /good HTTP/1.1\r\n" + HOST + b"\r\nGET / HTTP/1.1\r\nbad\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 200 ") and b"HTTP/1.1 400 " in got


def test_an_upload_that_breaks_off_does_not_reach_the_origin(hears):
    with connect(hears) as app:
        app.sendall(b"POST /half HTTP/1.1\r\n" + HOST + b"Content-Length: 100\r\n\r\nhalf")
    assert App(hears).ask("GET", "/after-half").status == 200
    assert hears.origin_log("/half") == []


def test_another_name_at_a_virtual_address_gets_421(hears):
    hears.cut("wifi", "lte")
    virtual = hears.dig("app", "origin.example")[0]
    assert virtual.startswith("198.18.") or virtual.startswith("198.19.")
    answer = hears.curl("app", f"http://{virtual}/", "-H", "Host: other.example")
    assert answer.status == 421, str(answer)


def test_what_is_no_http_by_its_first_bytes_is_relayed_as_tcp(hears):
    before = hears.get("/v1/status")["requests"]["tcp"]
    got = talk(hears, b"GET path HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
    assert b'"path": "path"' in got
    assert hears.get("/v1/status")["requests"]["tcp"] == before + 1


def test_connect_is_not_carried(hears):
    got = talk(hears, b"CONNECT origin.example:443 HTTP/1.1\r\n" + HOST + b"\r\n")
    assert got.startswith(b"HTTP/1.1 405 ")


def test_a_request_byte_by_byte_is_as_good_as_any(hears):
    with connect(hears, ORIGIN[1]) as app:
        for byte in b"POST /echo HTTP/1.1\r\n" + HOST + b"Connection: close\r\n" \
                    b"Content-Length: 2\r\n\r\nhi":  # fmt: skip
            app.sendall(bytes([byte]))
        got = read_all(app)
    assert got.startswith(b"HTTP/1.1 200 ") and got.endswith(b"hi")


def test_what_is_malformed_is_counted(hears):
    before = metric(hears, "bad_requests_total")
    talk(hears, b"GET / HTTP/1.1\r\nbad\r\n\r\n")
    assert metric(hears, "bad_requests_total") == before + 1
