"""One lab a module; a daemon a test.

    def test_something(daemon):
        lab = daemon({"defaults": {"hold": "1s"}})
        ...
"""

import pytest

from harness import Lab


@pytest.fixture(scope="module")
def lab():
    with Lab(accounted=True) as lab:
        yield lab


@pytest.fixture(autouse=True)
def accounted(request):
    """Nothing left over a link during the test that is not accounted for (accounts.py)."""
    if "lab" not in request.fixturenames:
        yield
        return
    accounts = request.getfixturevalue("lab").accounts
    accounts.during(request.node.nodeid)
    yield
    accounts.check()


@pytest.fixture
def daemon(lab):
    """daemon(changes) starts one with an empty queue and gives the lab. After the test it must
    still be there and stop in good order, unless the test itself ended it."""

    def start(changes=None, fresh=True, **more):
        lab.start_daemon(changes, fresh=fresh, **more)
        return lab

    yield start
    alive = lab.daemon is None or lab.daemon.poll() is None
    rc = lab.stop_daemon()
    for name in ("wifi", "lte"):
        lab.network.restore(name)
        lab.cloud.portal(name, on=False)
    lab.release()
    assert alive, f"the daemon died\n{lab.log()}"
    assert rc == 0, f"the daemon stopped with {rc}\n{lab.log()}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows what the daemon said."""
    outcome = yield
    report = outcome.get_result()
    lab = item.funcargs.get("lab")
    if report.failed and lab:
        report.sections.append(("holdfastd", "\n".join(lab.log().splitlines()[-80:])))
