"""webllm-compat.js without a model, in Node.js: what it checks, its names of errors, and its types by tsc."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from webllm.catalog import CATALOG

ROOT = Path(__file__).parents[2]
SHELL = ROOT / "browser_shell"
TSC = ROOT / "node_modules" / ".bin" / "tsc"
HI = [{"role": "user", "content": "Hi"}]
SYSTEM = {"role": "system", "content": "Be brief."}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}

CHAT = {  # request, without messages where they are in order -> what Web LLM throws
    "RangeError": [
        *({"frequency_penalty": 3}, {"presence_penalty": -3}, {"top_p": 0}, {"top_p": 1.1}),
        *({"logprobs": True, "top_logprobs": 6}, {"logit_bias": {"1": 101}}),
    ],
    "MinValueError": [{"repetition_penalty": 0}, {"max_tokens": 0}],
    "NonNegativeError": [{"temperature": -1}],
    "DependencyError": [{"top_logprobs": 2}],
    "InvalidNumberStringError": [{"logit_bias": {"Hello": 1}}],
    "StreamingCountError": [{"stream": True, "n": 2}],
    "SeedTypeError": [{"seed": 1.5}],
    "InvalidStreamOptionsError": [{"stream_options": {"include_usage": True}}],
    "InvalidResponseFormatError": [{"response_format": {"type": "text", "schema": "{}"}}],
    "InvalidResponseFormatGrammarError": [{"response_format": {"type": "grammar"}}],
    "InvalidResponseFormatStructuralTagError": [{"response_format": {"type": "text", "structural_tag": "{}"}}],
    "SystemMessageOrderError": [{"messages": [*HI, SYSTEM, *HI]}],
    "MessageOrderError": [
        {"messages": []},
        {"messages": [SYSTEM]},
        {"messages": [{"role": "assistant", "content": ""}]},
    ],
    "UnsupportedRoleError": [{"messages": [{"role": "critic", "content": ""}]}],
    "UserMessageContentErrorForNonVLM": [{"messages": [{"role": "user", "content": [IMAGE]}]}],
    "ContentTypeError": [{"messages": [{"role": "assistant", "content": []}, *HI]}],
    "UnsupportedModelIdError": [{"tools": [{"type": "function", "function": {"name": "f"}}]}],
    "UnsupportedFieldsError": [
        *({"n": 2}, {"logprobs": True}, {"tool_choice": "auto"}, {"user": "me"}),
        {"response_format": {"type": "json_object"}},
        {"extra_body": {"enable_thinking": False}},
        {"extra_body": {"resumable": {"enabled": True}}},
        {"extra_body": {"enable_latency_breakdown": True}},
    ],
    "nothing": [
        {},
        {"n": 1, "logprobs": False, "tools": [], "response_format": {"type": "text"}, "stop": None},
        {"stream": True, "stream_options": {"include_usage": True}, "extra_body": {"enable_thinking": True}},
        {"temperature": 0, "top_p": 1, "top_k": 4, "seed": -1, "ignore_eos": True},
        {"messages": [SYSTEM, *HI]},
    ],
}
SETTINGS = {  # chatOpts -> what Web LLM throws
    "WindowSizeConfigurationError": [{"context_window_size": 512, "sliding_window_size": 512}],
    "WindowSizeSpecificationError": [{"context_window_size": -1}],
    "UnsupportedFieldsError": [{"sliding_window_size": 512}, {"conv_template": {}}, {"attention_sink_size": 4}],
    "nothing": [{}, {"context_window_size": 512, "sliding_window_size": -1, "repetition_penalty": 1.01}],
}


def node(script: str, given: Any = None) -> Any:
    """What the script, a module beside webllm-compat.js, writes as JSON; `given` is JSON on its standard input."""
    start = f'const given = JSON.parse(await new Response(process.stdin).text());\nprocess.chdir("{SHELL}");\n'
    done = subprocess.run(
        ["node", "--input-type=module", "--eval", start + script],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        cwd=SHELL,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def thrown(call: str, cases: dict[str, list[Any]]) -> list[tuple[Any, str]]:
    """Each case, and the name of the error that `call` throws for it, or "nothing"."""
    script = f"""
        import * as requests from "{SHELL}/compat-requests.js";
        const name = (value) => {{ try {{ {call}; return "nothing"; }} catch (error) {{ return error.name; }} }};
        console.log(JSON.stringify(given.map(name)));"""
    flat = [case for group in cases.values() for case in group]
    return list(zip(flat, node(script, flat), strict=True))


@pytest.mark.parametrize(
    ("call", "cases"),
    [
        ("requests.checkChat(value, 'tiny')", {k: [{"messages": HI, **r} for r in v] for k, v in CHAT.items()}),
        ("requests.checkCompletion(value, 'tiny')", {"UnsupportedFieldsError": [{"prompt": "a", "suffix": "b"}],
                                                     "nothing": [{"prompt": "a", "echo": True}]}),
        ("requests.settingsOf({}, value)", SETTINGS),
    ],
    ids=["chat", "completion", "chatOpts"],
)  # fmt: skip
def test_what_web_llm_refuses_is_refused_under_its_name(call: str, cases: dict[str, list[Any]]) -> None:
    expected = [(case, name) for name, group in cases.items() for case in group]
    assert thrown(call, cases) == expected


def test_every_model_of_the_catalogue_has_its_own_name_and_one_of_web_llm() -> None:
    script = f"""
        import {{ prebuiltAppConfig }} from "{SHELL}/webllm-compat.js";
        import {{ prebuiltAppConfig as theirs }} from "@mlc-ai/web-llm";
        const known = new Set(theirs.model_list.map((record) => record.model_id));
        const models = prebuiltAppConfig.model_list.map((record) => [record.model_id, record.model]);
        console.log(JSON.stringify({{ models, theirs: models.filter(([id]) => known.has(id)) }}));"""
    found = node(script)
    assert {model_id for model_id, model in found["models"] if model_id == model} == set(CATALOG)
    assert {model for _, model in found["theirs"]} == set(CATALOG)


def test_whatever_web_llm_exports_is_there_or_named_as_missing() -> None:
    script = f"""
        import * as ours from "{SHELL}/webllm-compat.js";
        import * as theirs from "@mlc-ai/web-llm";
        console.log(JSON.stringify(Object.keys(theirs).filter((name) => !(name in ours))));"""
    missing = node(script)
    told = (ROOT / "docs" / "from-web-llm.md").read_text(encoding="utf-8")
    assert [name for name in missing if f"`{name}`" not in told] == []


def test_tsc_finds_our_engines_to_be_web_llm_s() -> None:
    """tests/types/web-llm.ts, in which a line that must be wrong is marked so. The code itself is checked."""
    done = subprocess.run([TSC, "-p", ROOT / "tests" / "types"], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("", 0)
