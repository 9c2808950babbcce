"""docs/models.md's tables of formats and of Web LLM's models are what code and tests have."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location

from tests.unit import web_llm_models
from tests.unit.web_llm_models import ROOT, ids, kind_of, loading, reason


def test_the_tables_are_what_code_and_tests_have() -> None:
    spec = spec_from_file_location("make_models", ROOT / "docs" / "make_models.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert module.made(page) == page, "run: python docs/make_models.py"


def test_every_model_of_web_llm_has_an_architecture_and_loads_or_has_a_reason() -> None:
    assert len(ids()) > 100
    assert {kind_of(name) for name in ids()} == set(web_llm_models.KINDS.values())
    assert all(reason(name) is None or name not in [*loading()] for name in ids())


def test_what_loads_is_read_by_the_reader_of_mlc_s_folders() -> None:
    """The quantisation in a model's name, and its architecture, are among those that `checkpoint_from_mlc` takes."""
    assert "Llama-3.2-1B-Instruct-q4f16_1-MLC" in loading() and "Llama-3.1-70B-Instruct-q3f16_1-MLC" in loading()
    assert reason("Phi-3.5-vision-instruct-q4f16_1-MLC") == "takes images"
    assert reason("Llama-3.2-1B-Instruct-q4f16_0-MLC") == "quantisation q4f16_0"
