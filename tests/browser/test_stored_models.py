"""The part of the settings that shows the browser's store, over a fake model."""

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

STORED = [
    {"name": "small", "bytes": 98_000_000, "stored_bytes": 98_000_000, "complete": True},
    {"name": "<b>half</b>", "bytes": 98_000_000, "stored_bytes": 40_000_000, "complete": False},
]


@pytest.fixture
def shown(open_page):
    """The page with its settings open."""
    page = open_page(stored=STORED, busy="small")
    expect(page.locator("body")).to_have_attribute("data-state", "ready")
    page.get_by_role("button", name="Settings").click()
    return page


def names(page):
    return page.locator("#stored-list li span:first-child").all_text_contents()


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def test_models_are_listed_with_their_sizes_and_what_is_free(shown):
    expect(shown.locator("#stored-list")).to_contain_text("98 MB")
    expect(shown.locator("#stored-list")).to_contain_text("40 MB of 98 MB")
    expect(shown.locator("#stored-space")).to_have_text("138 MB in all; the browser speaks of 4000 MB that are free.")
    assert names(shown) == ["small", "<b>half</b>"]
    expect(shown.get_by_role("button", name="Export <b>half</b>")).to_be_hidden()


def test_a_model_is_deleted_when_it_was_asked_twice_and_not_while_it_is_fetched(shown):
    press(shown, "Delete <b>half</b>")
    assert len(names(shown)) == 2
    press(shown, "Really delete <b>half</b>")
    expect(shown.locator("#stored-status")).to_have_text("<b>half</b> was deleted.")
    assert names(shown) == ["small"]
    press(shown, "Delete small")
    press(shown, "Really delete small")
    expect(shown.locator("#stored-status")).to_have_text("small is being fetched by a page")
    assert names(shown) == ["small"]


def test_a_model_is_checked(shown):
    press(shown, "Verify small")
    expect(shown.locator("#stored-status")).to_have_text("small is whole and right.")
    press(shown, "Verify <b>half</b>")
    expect(shown.locator("#stored-status")).to_contain_text("is not whole")
    expect(shown.locator("#announcer")).to_contain_text("is not whole")


def test_a_model_is_saved_as_a_file_under_a_strict_policy(shown):
    with shown.expect_download() as download:
        press(shown, "Export small")
    assert download.value.suggested_filename == "small.gguf"
    assert download.value.path().read_bytes() == b"GGUF"


def test_a_file_is_added_and_a_model_loaded(shown):
    file = {"name": "mine.gguf", "mimeType": "application/octet-stream", "buffer": b"GGUF"}
    shown.locator("#import").set_input_files(file)
    expect(shown.locator("#stored-status")).to_have_text("mine is kept.")
    assert names(shown)[0] == "mine"
    press(shown, "Load mine")
    expect(shown.get_by_role("dialog")).to_be_hidden()
    expect(shown.locator("#model")).to_have_text("mine")
    assert shown.evaluate("loads") == ["tiny", "mine"]


def test_a_download_is_shown_with_speed_and_time_left_and_then_the_way_to_the_gpu(open_page):
    page = open_page(loading=True, events=[{"phase": "download", "loaded": 49e6, "total": 98e6, "stored": 29e6}])
    text = page.locator("#loading-text")
    expect(text).to_have_text("49 of 98 MB · 10 MB/s, 5 s left")  # of 20 MB in 2 s, the rest was there before
