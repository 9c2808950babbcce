"""The kernel playground: an edited kernel is run, measured, and told where it does not compile."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from webllm import kernels

pytestmark = pytest.mark.browser

MINUTE = 60_000
RMS_NORM = kernels.read("rms_norm")


def wait_for(page: Page, state: str = "ready") -> None:
    expect(page.locator("body")).to_have_attribute("data-state", state, timeout=3 * MINUTE)


def run(page: Page, text: str) -> None:
    page.get_by_role("textbox", name="WGSL").fill(text)
    page.get_by_role("textbox", name="WGSL").press("Control+Enter")
    wait_for(page)


def test_a_kernel_is_edited_run_and_reset(page: Page, strict_url: str) -> None:
    page.goto(f"{strict_url}/playground.html?kernel=rms_norm")
    wait_for(page)
    editor, status, error = (
        page.get_by_role("textbox", name="WGSL"),
        page.get_by_role("status"),
        page.get_by_role("alert"),
    )
    expect(editor).to_have_value(RMS_NORM)
    everywhere = {name for name in kernels.names() if not kernels.header(kernels.read(name)).needs}
    assert everywhere <= set(page.locator("#kernel option").all_text_contents())

    page.get_by_role("button", name="Run").click()
    wait_for(page)
    expect(status).to_contain_text("Right on")
    assert float(page.locator("#error-now").inner_text()) < 1e-12
    expect(page.locator("#speed-now")).to_have_text(re.compile(r"^\d.*GB/s$"))

    run(page, RMS_NORM.replace("EPS);", "EPS + 1.0);", 1))
    expect(status).to_contain_text("Wrong on")
    assert float(page.locator("#error-now").inner_text()) > 1e-3
    assert float(page.locator("#error-before").inner_text()) < 1e-12

    lines = RMS_NORM.rstrip().split("\n")
    run(page, "\n".join([*lines, "fn broken() { <b>nonsense</b>(); }"]))
    expect(status).to_have_text("It does not compile.")
    expect(error).to_contain_text(f"rms_norm.wgsl, line {len(lines) + 1}:")
    expect(error).to_contain_text("<b>nonsense</b>")  # as text
    expect(page.locator("#numbers .wrong")).to_have_text(str(len(lines) + 1))
    selected = "e => e.value.slice(e.selectionStart, e.selectionEnd)"
    assert editor.evaluate(selected) == "fn broken() { <b>nonsense</b>(); }"

    page.get_by_role("button", name="Reset the file").click()
    expect(editor).to_have_value(RMS_NORM)
    page.get_by_label("File").select_option("lib/reduce.plain")
    run(page, kernels.read("lib/reduce.plain") + "\nbroken")
    expect(error).to_contain_text("lib/reduce.plain.wgsl, line ")

    page.get_by_role("button", name="Run").click()
    page.get_by_role("button", name="Cancel").click()
    wait_for(page)
    expect(error).to_contain_text("it was ended")
