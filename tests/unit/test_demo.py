"""What the demo decides without a browser: where it opens, with which flags, and what left the machine."""

import json

import pytest

from webllm import demo
from webllm.errors import FetchError

TYPES = {"REQUEST_ALIVE": 1, "URL_REQUEST_START_JOB": 2, "TCP_CONNECT_ATTEMPT": 3}
PAGE = "http://127.0.0.1:8000"


def netlog(*events):
    """A network log as Chromium writes it: one event a line."""
    lines = ",\n".join(json.dumps({"type": TYPES[name], "phase": 1, "params": params}) for name, params in events)
    return f'{{"constants":{json.dumps({"logEventTypes": TYPES})},\n"events": [\n{lines}]}}\n'


def request(url, initiator=PAGE, request_type="other"):
    return "URL_REQUEST_START_JOB", {"url": url, "initiator": initiator, "request_type": request_type}


def test_requests_to_this_machine_do_not_count():
    log = netlog(
        request(f"{PAGE}/", "not an origin", "main frame"),
        request(f"{PAGE}/worker.js"),
        request("http://localhost:8000/x"),
        request("blob:http://127.0.0.1:8000/17"),
        ("TCP_CONNECT_ATTEMPT", {"address": "127.0.0.1:8000"}),
        ("TCP_CONNECT_ATTEMPT", {"address": "[::1]:8000"}),
        ("REQUEST_ALIVE", {}),
    )
    assert demo.requests_elsewhere(log) == []


@pytest.mark.parametrize("url", ["https://example.org/a.js", "http://127.0.0.1.example.org/", "wss://example.org/"])
def test_a_request_of_the_page_to_another_host_counts_even_when_it_was_blocked(url):
    assert demo.requests_elsewhere(netlog(request(url))) == [url]


def test_a_page_that_navigates_away_counts():
    log = netlog(request("https://example.org/", "not an origin", "main frame"))
    assert demo.requests_elsewhere(log) == ["https://example.org/"]


def test_chromium_asking_for_updates_counts_only_when_it_gets_a_connection():
    update = request("https://update.example.org/", "not an origin")
    connection = ("TCP_CONNECT_ATTEMPT", {"address": "192.0.2.7:443"})
    assert demo.requests_elsewhere(netlog(update)) == []
    assert demo.requests_elsewhere(netlog(update, connection)) == ["tcp://192.0.2.7:443"]


def test_a_log_that_breaks_off_is_read_as_far_as_it_goes():
    log = netlog(request("https://one.example/"), request("https://two.example/"), request("https://three.example/"))
    assert demo.requests_elsewhere(log[:-40]) == ["https://one.example/", "https://two.example/"]


@pytest.mark.parametrize(
    ("environ", "platform", "expected"),
    [
        ({}, "linux", True),
        ({"DISPLAY": ":0"}, "linux", False),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", False),
        ({"DISPLAY": ":0", "HEADLESS": "1"}, "linux", True),
        ({"DISPLAY": ":0", "HEADLESS": "0"}, "linux", False),
        ({}, "darwin", False),
        ({"HEADLESS": "1"}, "darwin", True),
    ],
)
def test_the_demo_is_headless_where_no_window_can_open_or_when_told(environ, platform, expected):
    assert demo.no_display(environ, platform) is expected


def test_the_browser_reaches_this_machine_only_and_swiftshader_stands_in_for_a_gpu(tmp_path):
    flags = demo.browser_flags(tmp_path / "log.json", gpu=False)
    assert "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1" in flags
    assert set(demo._SWIFTSHADER) <= set(flags)
    assert f"--log-net-log={tmp_path / 'log.json'}" in flags
    assert not set(demo._SWIFTSHADER) & set(demo.browser_flags(gpu=True))


def test_a_browser_named_by_the_environment_comes_first(tmp_path, monkeypatch):
    mine = tmp_path / "my-chromium"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    monkeypatch.setenv("CHROMIUM", str(mine))
    assert demo.find_browser() == str(mine)


def test_a_named_browser_that_does_not_exist_is_an_error_and_not_replaced_by_another(monkeypatch):
    monkeypatch.setenv("CHROMIUM", "/no/such/chromium")
    with pytest.raises(FetchError, match="CHROMIUM=/no/such/chromium"):
        demo.find_browser()
