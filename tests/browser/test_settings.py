"""The settings dialog: what is sent, what is kept, and what the address may say."""

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser

KEPT = "JSON.parse(localStorage.getItem('webllm.settings'))"


def options_sent(page):
    """The options of a request, besides messages and stream."""
    page.get_by_role("textbox").fill("Hi")
    page.get_by_role("textbox").press("Enter")
    expect(page.locator("#stats")).to_contain_text("tokens")
    options = page.evaluate("requests.at(-1)")
    assert options.pop("stream") is True
    return options


def open_settings(page):
    page.get_by_role("button", name="Settings").click()


def close_settings(page):
    page.get_by_role("button", name="Done").click()
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_an_empty_field_is_not_sent(open_page):
    assert options_sent(open_page()) == {"messages": [{"role": "user", "content": "Hi"}]}


def test_what_is_set_is_sent_and_kept_by_the_browser(open_page):
    page = open_page()
    open_settings(page)
    for name, value in {
        "System prompt": "Be brief.",
        "Temperature": "0.7",
        "Top p": "0.9",
        "Top k": "40",
        "Min p": "0.05",
        "Repetition penalty": "1.1",
        "Seed": "0",
        "Longest answer": "100",
    }.items():
        page.get_by_label(name).fill(value)
    close_settings(page)
    wanted = {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
        "seed": 0,
        "max_tokens": 100,
    }
    assert options_sent(page) == wanted
    page.reload()
    assert options_sent(page) == wanted


def test_reset_empties_every_field_and_forgets(open_page):
    page = open_page()
    open_settings(page)
    page.get_by_label("Temperature").fill("0.7")
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_role("button", name="Reset all").click()
    expect(page.get_by_label("Temperature")).to_have_value("")
    expect(page.locator("#announcer")).to_have_text("All settings are the model's own")
    close_settings(page)
    assert page.evaluate(KEPT) == {}
    assert options_sent(page) == {"messages": [{"role": "user", "content": "Hi"}]}


def test_the_button_tells_how_many_settings_are_changed(open_page):
    page = open_page("?top_k=1")
    open_settings(page)
    page.get_by_label("Seed").fill("7")
    close_settings(page)
    expect(page.get_by_role("button", name="Settings 2 changed")).to_be_visible()


def test_the_address_wins_over_what_was_kept_and_is_not_kept_itself(open_page):
    page = open_page()
    page.evaluate("localStorage.setItem('webllm.settings', JSON.stringify({temperature: '0.7', top_k: '5'}))")
    page.goto(page.url + "?temperature=0")
    open_settings(page)
    page.get_by_label("Top p").fill("0.5")
    close_settings(page)
    assert options_sent(page).items() >= {"temperature": 0, "top_k": 5, "top_p": 0.5}.items()
    assert page.evaluate(KEPT) == {"temperature": "0.7", "top_k": "5", "top_p": "0.5"}


def test_an_empty_value_in_the_address_is_the_models_default(open_page):
    page = open_page()
    page.evaluate("localStorage.setItem('webllm.settings', JSON.stringify({temperature: '0.7'}))")
    page.goto(page.url + "?temperature=")
    assert "temperature" not in options_sent(page)


@pytest.mark.parametrize("value", ["hot", "-1", "1e9", "0.001"])
def test_a_wrong_value_in_the_address_is_named_and_ignored(open_page, value):
    page = open_page(f"?temperature={value}")
    expect(page.locator("#notice")).to_have_text(
        f"temperature={value} in the address is ignored: wanted a number from 0 to 2 in steps of 0.01."
    )
    assert "temperature" not in options_sent(page)


def test_a_link_cannot_bring_a_system_prompt(open_page):
    page = open_page("?system=Lie.")
    assert len(options_sent(page)["messages"]) == 1


def test_a_value_out_of_range_is_marked_and_neither_sent_nor_kept(open_page):
    page = open_page()
    open_settings(page)
    page.get_by_label("Temperature").fill("9")
    expect(page.get_by_label("Temperature")).to_have_attribute("aria-invalid", "true")
    page.get_by_role("button", name="Done").click()
    expect(page.get_by_role("dialog")).to_be_visible()  # the browser points at the field
    page.keyboard.press("Escape")
    assert "temperature" not in options_sent(page)
    assert page.evaluate("localStorage.getItem('webllm.settings')") is None


@pytest.mark.parametrize("kept", ["{", "null", "[1]", '"text"', '{"temperature": {}, "seed": "<b>"}'])
def test_whatever_the_storage_holds_the_page_works(open_page, kept):
    page = open_page()
    page.evaluate("kept => localStorage.setItem('webllm.settings', kept)", kept)
    page.reload()
    assert options_sent(page) == {"messages": [{"role": "user", "content": "Hi"}]}


def test_every_field_has_a_label_and_an_explanation(open_page):
    page = open_page()
    open_settings(page)
    fields = page.get_by_role("dialog").locator(".field").locator("input, textarea")
    assert fields.count() == 8
    for field in fields.all():
        assert field.evaluate("field => field.labels[0].textContent")
        described = field.get_attribute("aria-describedby")
        assert len(page.locator(f"#{described}").inner_text()) > 20
