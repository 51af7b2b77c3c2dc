"""packaging/holdfast.service gives the daemon what it needs and no more.

    setpriv (the unit's CapabilityBoundingSet) --> holdfastd --> steers, guards, proxies
"""

import re

from harness import ROOT
from network import ORIGIN

UNIT = (ROOT / "packaging/holdfast.service").read_text()


def test_the_daemon_works_with_the_capabilities_of_its_unit(lab):
    names = re.search(r"^CapabilityBoundingSet=(.*)$", UNIT, re.M)[1].split()
    kept = ",".join("+" + name.removeprefix("CAP_").lower() for name in names)
    wrapper = lab.folder / "limited"
    wrapper.write_text(f'#!/bin/sh\nexec setpriv --bounding-set=-all,{kept} {lab.holdfastd} "$@"\n')
    wrapper.chmod(0o755)
    unlimited, lab.holdfastd = lab.holdfastd, str(wrapper)
    try:
        lab.start_daemon(fresh=True)
        status = open(f"/proc/{lab.daemon.pid}/status").read()
        assert int(re.search(r"CapEff:\s*(\w+)", status)[1], 16).bit_count() <= len(names)
        for where in ("app", "device"):
            assert lab.curl(where, f"http://{ORIGIN[0]}/limited").status == 200
        assert lab.host("ping", "-c", "1", "-W", "3", ORIGIN[0]).rc == 0
        assert lab.stop_daemon() == 0
    finally:
        lab.stop_daemon()
        lab.holdfastd = unlimited
        lab.release()


def test_the_unit_keeps_a_descriptor_for_every_listening_socket():
    kept = int(re.search(r"^FileDescriptorStoreMax=(\d+)$", UNIT, re.M)[1])
    sockets = (ROOT / "bpf/abi.h").read_text().split("enum hf_socket {")[1].split("}")[0]
    assert kept >= len(re.findall(r"HF_SOCKET_(?!COUNT)", sockets))
    assert re.search(r"^Type=notify$", UNIT, re.M)
