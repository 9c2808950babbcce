"""The self-test in the page: every kernel compiled by Chromium's own Tint, with and without subgroups."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from webllm.selftest.cases import all_cases

pytestmark = pytest.mark.browser

MINUTE = 60_000
# One format each; the others differ in lib/weight.*.wgsl only, which `embed` and `matvec` of all formats run.
QUICK = ["embed", "vector", "norm", "matvec", "gate and up Q4_0", "matmul Q4_0", "attention f16", "next token"]


def doctor(page: Page, url: str, only: list[str]) -> dict[str, Any]:
    page.set_default_timeout(10 * MINUTE)
    page.goto(f"{url}/site.json")
    code = "async only => { await import('/webllm.js'); return window.webllm.doctor({ only }); }"
    result: dict[str, Any] = page.evaluate(code, only)
    return result


def check(result: dict[str, Any]) -> None:
    assert result["kernels"]
    assert [kernel for kernel in result["kernels"] if not kernel["ok"]] == []


def test_kernels_are_right_in_chromium(page: Page, url: str) -> None:
    result = doctor(page, url, QUICK)
    check(result)
    assert "subgroups" in result["features"]
    assert ["reduce.subgroups"] in [kernel["variants"] for kernel in result["kernels"]]


@pytest.mark.slow
@pytest.mark.parametrize("name", [case.name for case in all_cases()])
def test_all_kernels_are_right_in_chromium(page: Page, url: str, name: str) -> None:
    check(doctor(page, url, [name]))


def test_the_doctors_page_shows_a_table(page: Page, url: str) -> None:
    page.goto(f"{url}/doctor.html?only=copy")
    expect(page.locator("body")).to_have_attribute("data-state", "ready", timeout=2 * MINUTE)
    expect(page.locator("#status")).to_have_text(re.compile("1 kernels and variants, 0 wrong"))
    expect(page.locator("#kernels tr")).to_have_text(re.compile("copy.*ok"))
