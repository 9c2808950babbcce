"""Every command of `webllm`: what it prints, where, and its exit status. The GPU is played by a script."""

import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
from gguf import GGUFWriter, TokenType

import webllm
from webllm import bench, site
from webllm.chat import Completions
from webllm.checkpoint.gguf import read_gguf
from webllm.checkpoint.gguf_model import checkpoint_from_gguf
from webllm.cli import main
from webllm.device import AdapterInfo
from webllm.device.native import list_adapters
from webllm.engine import Engine
from webllm.errors import NoAdapter, RequestError
from webllm.host import native
from webllm.host.files import FileSource
from webllm.ops import RING
from webllm.selftest.cases import RMS_NORM
from webllm.synthetic import checkpoint_from_config

ROOT = Path(__file__).parents[2]
TOKENS = [*map(chr, range(0x21, 0x7F)), "Ġ", "Ċ", "Hi", "<|im_start|>", "<|im_end|>"]
HI, START, END = (TOKENS.index(text) for text in ("Hi", "<|im_start|>", "<|im_end|>"))
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
}
COMMANDS = ["bench", "chat", "demo", "detokenize", "doctor", "generate", "list", "plan", "pull", "rm", "site"]
COMMANDS += ["tokenize", "tune"]


class ScriptedDevice:
    """A device that says the same tokens to whatever it is asked, and computes nothing."""

    info = AdapterInfo("Script", "Paper", software=True, driver="1.0")
    features = frozenset({"shader-f16"})
    limits = MappingProxyType(
        {
            "maxBufferSize": 256 << 20,
            "maxStorageBufferBindingSize": 128 << 20,
            "maxComputeWorkgroupStorageSize": 16 << 10,
            "maxComputeInvocationsPerWorkgroup": 256,
        }
    )

    def __init__(self, *script, interrupt_at=None):
        self.script, self.said, self.interrupt_at, self.closed = script, 0, interrupt_at, False

    async def load(self, program, sources, on_progress=None):
        return SimpleNamespace(program=program, seconds={})

    def write(self, loaded, name, data, offset=0):
        self.said = 0 if name == "step" else self.said

    async def submit(self, loaded, plans, rows, length, steps=1):
        if plans[0] != "decode":
            return b""
        ring = [0] * RING
        ring[self.said % RING] = self.script[self.said % len(self.script)]
        if self.said == self.interrupt_at:
            self.interrupt_at = None
            signal.raise_signal(signal.SIGINT)
        self.said += 1
        return struct.pack(f"<{RING}I", *ring)

    async def read(self, loaded, name, size, offset=0):
        return np.arange(size // 4, dtype=np.float32).tobytes()

    gpu_bytes = 0

    async def grow(self, loaded, sizes): ...

    def unload(self, loaded): ...

    def close(self):
        self.closed = True


@pytest.fixture
def cli(capsys):
    """Runs a command: (exit status, stdout, stderr)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "--json" not in arguments or out.count("\n") == 1, out
        return end.value.code, out, err

    return run


@pytest.fixture
def done(cli):
    """The JSON object of a command that succeeds."""

    def run(*arguments):
        status, out, err = cli(*arguments, "--json")
        assert status == 0, out + err
        return json.loads(out)

    return run


@pytest.fixture
def failed(cli):
    """(exit status, error type, message) of a command that fails; it says so once and shows no stack."""

    def run(*arguments):
        status, out, err = cli(*arguments, "--json")
        plain_status, plain_out, plain_err = cli(*arguments)
        error = json.loads(out)["error"]
        assert (plain_status, plain_out) == (status, "")
        assert error["message"] in plain_err and "Traceback" not in err + plain_err
        return status, error["type"], error["message"]

    return run


def vocabulary(path):
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(TOKENS)
    writer.add_token_types([TokenType.NORMAL] * (len(TOKENS) - 2) + [TokenType.CONTROL] * 2)
    writer.add_token_merges(["H i"])
    writer.add_eos_token_id(END)
    writer.add_chat_template(TEMPLATE)
    return writer


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="session")
def vocabulary_file(tmp_path_factory):
    """A GGUF with a vocabulary and no tensors."""
    path = tmp_path_factory.mktemp("models") / "vocabulary.gguf"
    finish(vocabulary(path))
    return path


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    """A whole model of one layer, all zeros."""
    path, (hidden, inner) = tmp_path_factory.mktemp("models") / "tiny.gguf", (32, 64)
    writer = vocabulary(path)
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    for name, rows, cols in (
        ("token_embd", len(TOKENS), hidden),
        *((f"blk.0.attn_{part}", hidden, hidden) for part in ("q", "k", "v", "output")),
        *((f"blk.0.ffn_{part}", inner, hidden) for part in ("gate", "up")),
        ("blk.0.ffn_down", hidden, inner),
    ):
        writer.add_tensor(f"{name}.weight", np.zeros((rows, cols), np.float32))
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.zeros(hidden, np.float32))
    finish(writer)
    return path


@pytest.fixture
def plays(monkeypatch):
    """`plays(device)` makes it the only GPU there is."""

    def play(device):
        async def open_device(adapter=None, power_preference=None):
            return device

        monkeypatch.setattr("webllm.host.native.open_device", open_device)
        return device

    return play


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    return path


# The program


def test_help_names_every_command(cli):
    status, out, _ = cli("--help")
    assert status == 0
    assert all(f" {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(cli, command):
    status, out, _ = cli(command, "--help")
    assert status == 0 and f"webllm {command}" in out


def test_the_version_is_the_packages(cli):
    assert cli("--version") == (0, f"webllm {webllm.__version__}\n", "")


def test_no_command_is_wrong_usage_and_shows_help(cli):
    status, out, err = cli()
    assert status == 2 and "Usage" in out + err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nope"],
        ["tokenize", "model.gguf"],
        ["generate", "model.gguf"],
        ["generate", "model.gguf", "--ids", "1,x"],
        ["generate", "model.gguf", "--ids", "1", "--ids-file", __file__],
        ["generate", "model.gguf", "--ids-file", "/nowhere"],
        ["generate", "model.gguf", "--ids", "1", "--max-tokens", "0"],
        ["chat", "model.gguf", "--prompt", "Hi", "--kv", "f8"],
        ["chat", "model.gguf", "--prompt", "Hi", "--temperature", "-1"],
        ["plan", "model.gguf", "--limits", "some"],
        ["plan", "model.gguf", "--features", "shader-f16,subgroup"],
        ["plan", "model.gguf", "--quant", "q4_k"],
        ["bench", "model.gguf", "--quant", "q4_k"],
        ["chat", "model.gguf", "--prompt", "Hi", "--quant", "q5"],
        ["bench"],
        ["bench", "model.gguf", "--config", __file__],
        ["list", "--nope"],
    ],
)
def test_wrong_usage_ends_with_2_and_one_message(failed, arguments):
    status, kind, message = failed(*arguments)
    assert (status, kind) == (2, "UsageError") and message


def test_a_conversation_cannot_be_one_json_object(cli):
    status, out, _ = cli("chat", "model.gguf", "--json")
    assert status == 2 and json.loads(out)["error"]["type"] == "UsageError"


def test_an_unforeseen_error_is_one_json_object_and_shows_its_stack_on_stderr(cli, monkeypatch):
    monkeypatch.setattr("webllm.pull.remove", lambda name: 1 / 0)
    status, out, err = cli("rm", "smollm2-135m-instruct", "--json")
    assert (status, json.loads(out)["error"]["type"]) == (1, "ZeroDivisionError")
    assert "Traceback" in err


def test_a_folder_that_cannot_be_written_is_no_bug(failed, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", "/out")

    monkeypatch.setattr(site, "build_site", refuse)
    assert failed("site", "/out")[:2] == (1, "PermissionError")


@pytest.fixture
def runtime_folders(cli, monkeypatch):
    """`runtime_folders()` runs a command: XDG_RUNTIME_DIR while it ran, and its access rights."""
    seen = []

    def look(name):
        folder = os.environ["XDG_RUNTIME_DIR"]
        seen.append((Path(folder), os.stat(folder).st_mode & 0o777))

    def run():
        assert cli("rm", "smollm2-135m-instruct")[0] == 0
        return seen.pop()

    monkeypatch.setattr("webllm.pull.remove", look)
    return run


@pytest.mark.skipif(sys.platform != "linux", reason="Mesa asks for it on Linux")
def test_a_command_has_a_runtime_folder_of_its_own_where_there_is_none(runtime_folders, monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    folder, rights = runtime_folders()
    assert rights == 0o700
    assert not folder.exists() and "XDG_RUNTIME_DIR" not in os.environ


def test_a_runtime_folder_that_there_is_is_kept(runtime_folders, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_folders()[0] == tmp_path
    assert tmp_path.exists() and os.environ["XDG_RUNTIME_DIR"] == str(tmp_path)


def in_a_new_process(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)


@pytest.mark.parametrize("arguments", [["--help"], ["tokenize", "MODEL", "--text", "Hi", "--json"], ["plan", "MODEL"]])
def test_what_needs_no_gpu_loads_neither_wgpu_nor_numpy(vocabulary_file, model_file, arguments):
    model = model_file if "plan" in arguments else vocabulary_file
    code = (
        "import sys, atexit; from webllm.cli import main; "
        "atexit.register(lambda: print(sorted({'wgpu', 'numpy'} & set(sys.modules)), file=sys.stderr)); main()"
    )
    ran = in_a_new_process(code, *(model if a == "MODEL" else a for a in arguments))
    assert (ran.returncode, ran.stderr) == (0, "[]\n")


def test_importing_the_command_line_loads_nothing_of_the_commands():
    ran = in_a_new_process("import sys, webllm.cli; print(*sys.modules)")
    heavy = {"wgpu", "numpy", "tokenizers", "huggingface_hub", "httpx2", "jinja2", "webllm.engine"}
    assert not heavy & set(ran.stdout.split())


def test_a_mistake_in_a_process_of_its_own_ends_with_1(tmp_path):
    (tmp_path / "no.gguf").write_bytes(b"not a model")
    ran = in_a_new_process("from webllm.cli import main; main()", "tokenize", tmp_path / "no.gguf", "--text", "Hi")
    assert ran.returncode == 1 and ran.stdout == ""
    assert "a GGUF file starts with" in ran.stderr and "Traceback" not in ran.stderr


# Models on this machine


def test_pull_prints_the_path(cli, done, model_file):
    assert cli("pull", model_file) == (0, f"{model_file}\n", "")
    assert done("pull", model_file) == {"path": str(model_file)}


@pytest.mark.parametrize(
    "command",
    [["pull"], ["rm"], ["plan"], ["tokenize", "--text", "x"], ["generate", "--ids", "1"], ["chat", "--prompt", "x"]],
)
def test_an_unknown_model_ends_with_1_and_says_which_there_are(failed, command):
    status, kind, message = failed(command[0], "no-such-model", *command[1:])
    assert (status, kind) == (1, "ModelNotFound")
    assert "smollm2-135m-instruct" in message


@pytest.mark.parametrize("command", [["plan"], ["tokenize", "--text", "x"], ["generate", "--ids", "1"], ["bench"]])
def test_what_is_no_gguf_ends_with_1(failed, tmp_path, command):
    path = tmp_path / "no.gguf"
    path.write_bytes(b"not a model")
    assert failed(command[0], path, *command[1:])[:2] == (1, "NotAModel")


def test_list_and_rm_look_into_the_cache_folder(done, cli, tmp_path, monkeypatch):
    monkeypatch.setenv("WEBLLM_CACHE", str(tmp_path))
    [entry] = done("list")["models"]
    assert entry["name"] == "smollm2-135m-instruct" and entry["path"] is None
    assert "not here yet" in cli("list")[1]
    (tmp_path / entry["name"]).mkdir()
    assert done("rm", entry["name"]) == {"removed": True}
    assert done("rm", entry["name"]) == {"removed": False}
    assert cli("rm", entry["name"])[:2] == (0, f"{entry['name']} was not there\n")


def test_the_help_of_rm_promises_short_names_only(cli):
    out = cli("rm", "--help")[1]
    assert "short name" in out and "URL" not in out and ".gguf" not in out


@pytest.mark.parametrize(
    "command", [["chat", "no.gguf", "--prompt", "x"], ["plan", "no.json"], ["plan", "no.json", "--quant", "q4"]]
)
def test_a_file_that_is_not_there_is_told_with_the_folder(failed, command):
    status, kind, message = failed(*command)
    assert (status, kind) == (1, "ModelNotFound")
    assert f"'{command[1]}': no such file or folder in {Path.cwd()}" in message


# Text


def test_text_becomes_ids_and_back_without_tensors(done, cli, vocabulary_file):
    assert done("tokenize", vocabulary_file, "--text", "Hi Hi")["ids"] == [HI, TOKENS.index("Ġ"), HI]
    assert done("detokenize", vocabulary_file, "--ids", f"{HI},{TOKENS.index('Ġ')}, {HI}") == {"text": "Hi Hi"}
    assert cli("tokenize", vocabulary_file, "--text", "HiHi")[1] == f"{HI},{HI}\n"


def test_special_tokens_are_text_unless_asked_for(done, vocabulary_file):
    text = "<|im_end|>"
    assert END not in done("tokenize", vocabulary_file, "--text", text)["ids"]
    assert done("tokenize", vocabulary_file, "--text", text, "--special")["ids"] == [END]
    assert done("detokenize", vocabulary_file, "--ids", END) == {"text": ""}
    assert done("detokenize", vocabulary_file, "--ids", END, "--special") == {"text": text}


def test_an_id_outside_the_vocabulary_ends_with_1(failed, vocabulary_file):
    assert failed("detokenize", vocabulary_file, "--ids", "100000")[:2] == (1, "RequestError")


# Running a model


def test_generate_gives_what_the_contract_lists(done, plays, model_file):
    device = plays(ScriptedDevice(HI, HI, END))
    result = done("generate", model_file, "--ids", "1,2,3", "--max-tokens", "8", "--exact")
    last = len(TOKENS) - 1
    assert result["ids"] == [HI, HI, END] and result["prompt_ids"] == [1, 2, 3]
    assert (result["text"], result["finish_reason"]) == ("HiHi", "stop")
    assert result["top10_ids"] == list(range(last, last - 10, -1))
    assert result["top10_logits"] == [float(i) for i in result["top10_ids"]]
    assert result["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert set(result["timing"]) == {"load_s", "ttft_s", "prefill_tokens_per_s", "decode_tokens_per_s"}
    assert result["adapter"] == {"name": "Script", "backend": "Paper", "features": ["shader-f16"]}
    assert result["model"] == str(model_file)
    assert device.closed


def test_generate_ends_at_max_tokens_and_goes_on_after_a_stop_id_when_told(done, plays, model_file):
    plays(ScriptedDevice(END, HI))
    result = done("generate", model_file, "--ids", "1", "--max-tokens", "3", "--ignore-eos")
    assert (result["ids"], result["finish_reason"]) == ([END, HI, END], "length")


@pytest.mark.parametrize("text", ["1,2\n3", "[1, 2, 3]\n"])
def test_ids_may_come_from_a_file(done, plays, model_file, tmp_path, text):
    plays(ScriptedDevice(END))
    (tmp_path / "ids").write_text(text)
    assert done("generate", model_file, "--ids-file", tmp_path / "ids")["prompt_ids"] == [1, 2, 3]


def test_generate_streams_text_to_stdout_and_the_speed_to_stderr(cli, plays, model_file):
    plays(ScriptedDevice(HI, END))
    status, out, err = cli("generate", model_file, "--ids", "1")
    assert (status, out) == (0, "Hi\n")
    assert "2 tokens, " in err and "tokens/s" in err


@pytest.mark.parametrize(
    ("ids", "kind"), [("", "RequestError"), ("999", "RequestError"), (",".join(["1"] * 65), "ContextFull")]
)
def test_a_prompt_that_cannot_be_ends_with_1(failed, plays, model_file, ids, kind):
    plays(ScriptedDevice(END))
    assert failed("generate", model_file, "--ids", ids)[:2] == (1, kind)


def test_no_adapter_ends_with_1(failed, monkeypatch, model_file):
    async def open_device(adapter=None, power_preference=None):
        raise NoAdapter(f"none like {adapter}")

    monkeypatch.setattr("webllm.host.native.open_device", open_device)
    for command in (["generate", model_file, "--ids", "1"], ["doctor"]):
        assert failed(*command, "--adapter", "big") == (1, "NoAdapter", "none like big")


def test_chat_gives_what_the_contract_lists(done, plays, model_file):
    plays(ScriptedDevice(HI, END))
    result = done("chat", model_file, "--prompt", "Hi", "--system", "Hi", "--temperature", "0")
    assert result["prompt_ids"] == [START, HI, END] * 2
    assert (result["ids"], result["text"], result["finish_reason"]) == ([HI, END], "Hi", "stop")
    assert result["usage"] == {"prompt_tokens": 6, "completion_tokens": 2, "total_tokens": 8}
    assert set(result["timing"]) == {"load_s", "ttft_s", "prefill_tokens_per_s", "decode_tokens_per_s"}
    assert result["adapter"]["name"] == "Script"
    assert result["seed"] is None


def test_chat_tells_the_seed_that_repeats_the_answer(done, plays, model_file):
    plays(ScriptedDevice(HI, END))
    assert done("chat", model_file, "--prompt", "Hi", "--seed", "7")["seed"] == 7
    assert isinstance(done("chat", model_file, "--prompt", "Hi")["seed"], int)


def test_chat_with_a_prompt_streams_one_answer(cli, plays, model_file):
    plays(ScriptedDevice(HI, HI, END))
    status, out, err = cli("chat", model_file, "--prompt", "Hi", "--max-tokens", "2", "--temperature", "0")
    assert (status, out) == (0, "HiHi\n")
    assert "2 tokens, " in err


@pytest.mark.parametrize(
    ("script", "flags", "ending"),
    [
        ([HI], ["--max-tokens", "2"], ", cut off at --max-tokens\n"),
        ([HI], [], ", cut off: the context is full (--context)\n"),
        ([HI], ["--max-tokens", "1000", "--context", "8"], ", cut off: the context is full (--context)\n"),
        ([HI, END], ["--max-tokens", "2"], " s\n"),
    ],
)
def test_an_answer_that_was_cut_off_says_by_what(cli, plays, model_file, monkeypatch, script, flags, ending):
    plays(ScriptedDevice(*script))
    assert cli("chat", model_file, "--prompt", "Hi", "--temperature", "0", *flags)[2].endswith(ending)
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi\n"))
    assert cli("chat", model_file, "--temperature", "0", *flags)[2].endswith(ending)


def test_chat_passes_on_the_options_that_were_given_and_no_others(failed, plays, model_file, monkeypatch):
    seen = []

    async def create(self, messages, *, stream, return_token_ids, **options):
        seen.append(options)
        raise RequestError("seen")

    monkeypatch.setattr(Completions, "create", create)
    plays(ScriptedDevice(END))
    options = {"temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "seed": 7, "max_tokens": 5}
    flags = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    failed("chat", model_file, "--prompt", "Hi")
    failed("chat", model_file, "--prompt", "Hi", *flags, "--stop", "a", "--stop", "b")
    assert seen[0] == {} and seen[-1] == {**options, "stop": ["a", "b"]}


def test_a_conversation_remembers_and_survives_a_message_that_is_too_long(cli, plays, model_file, monkeypatch):
    plays(ScriptedDevice(HI, END))
    prompts = []
    check = Engine.check
    monkeypatch.setattr(Engine, "check", lambda self, ids, *how: prompts.append([*ids]) or check(self, ids, *how))
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"Hi\n\n{'x' * 100}\nHi\n/exit\nHi\n"))
    status, out, err = cli("chat", model_file, "--temperature", "0")
    assert (status, out) == (0, "Hi\nHi\n")
    assert "the context holds 64" in err
    assert prompts[0] == [START, HI, END]
    assert prompts[-1] == [START, HI, END] * 3  # the question, the answer, the next question


class Terminal(io.StringIO):
    """Lines that a person types."""

    def isatty(self):
        return True


def test_a_conversation_on_a_terminal_begins_with_the_model_and_the_ways_out(cli, plays, model_file, monkeypatch):
    plays(ScriptedDevice(HI, END))
    monkeypatch.setattr(sys, "stdin", Terminal("Hi\nHi\n"))
    status, _, err = cli("chat", model_file, "--temperature", "0")
    assert status == 0 and err.startswith(f"{model_file}: /exit or Ctrl-D ends the conversation, Ctrl-C an answer\n")
    assert err.count("/exit") == 1
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi\n"))
    assert "/exit" not in cli("chat", model_file, "--temperature", "0")[2]


def test_an_unknown_command_of_a_conversation_is_told_and_not_sent(cli, plays, model_file, monkeypatch):
    plays(ScriptedDevice(HI, END))
    monkeypatch.setattr(sys, "stdin", io.StringIO("/quit now\nHi\n/exit\nHi\n"))
    status, out, err = cli("chat", model_file, "--temperature", "0")
    assert (status, out) == (0, "Hi\n")
    assert err.startswith("no command /quit: /exit ends the conversation\n")


def test_ctrl_c_ends_a_single_answer_with_130(cli, plays, model_file):
    plays(ScriptedDevice(HI, interrupt_at=2))
    status, out, _ = cli("chat", model_file, "--prompt", "Hi", "--temperature", "0", "--json")
    assert (status, json.loads(out)["error"]["type"]) == (130, "Interrupted")
    plays(ScriptedDevice(HI, interrupt_at=2))
    assert cli("generate", model_file, "--ids", "1") == (130, "HiHiHi\n", "webllm: interrupted\n")


def test_ctrl_c_ends_an_answer_but_not_the_conversation(cli, plays, model_file, monkeypatch):
    plays(ScriptedDevice(HI, HI, HI, HI, END, interrupt_at=1))
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi\nHi\n"))
    status, out, _ = cli("chat", model_file, "--temperature", "0")
    assert (status, out) == (0, "HiHi\nHiHiHiHi\n")


def test_control_characters_of_a_model_do_not_reach_a_terminal(capsys, monkeypatch):
    from webllm.cli.output import write

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    write("a\x1b[2J\tb\n")
    assert capsys.readouterr().out == "a\ufffd[2J\tb\n"


# Looking inside


@pytest.fixture(params=["model", "config"])
def plannable(request, model_file, config_file):
    return model_file if request.param == "model" else config_file


def test_plan_gives_what_the_contract_lists(done, plannable):
    result = done("plan", plannable, "--features", "subgroups,shader-f16", "--limits", "default", "--context", "64")
    assert set(result["plans"]) == {"decode", "prefill", "greedy", "sample"}
    for one in result["plans"].values():
        assert one["dispatches"] == len(one["steps"]) == sum(one["kernels"].values())
        assert all({"kernel", "grid", "constants", "buffers"} <= set(step) for step in one["steps"])
        assert one["bytes_read"] <= result["memory"]["weights"]
    assert result["plans"]["decode"]["bytes_read"] > 0
    assert 1 <= result["plans"]["decode"]["dispatches_per_layer"] <= 9
    assert result["features"] == ["shader-f16", "subgroups"]
    memory = result["memory"]
    assert memory["total"] == sum(memory[part] for part in ("weights", "kv", "scratch", "other"))


def test_plan_for_people_names_kernels_and_sizes(cli, config_file):
    status, out, _ = cli("plan", config_file)
    assert status == 0 and "matvec" in out and "a full context of 2048" in out


def test_a_quantisation_that_only_a_configuration_may_be_given_is_wrong_usage(failed, model_file):
    for command in ("plan", "bench"):
        message = failed(command, model_file, "--quant", "q4_k")[2]
        assert "q4_k is for a config.json; a model takes q4, q4_sym, q8, f16, f32" in message


def test_a_plan_shows_what_quantising_would_save(done, model_file):
    """The file has F32; q8 takes 8.5 bits, and more for rows of 72 columns, which fill 96."""
    whole, small = (done("plan", model_file, *quant)["memory"]["weights"] for quant in ([], ["--quant", "q8"]))
    assert 0.25 < small / whole < 0.4


TINY = Path(__file__).parents[1] / "data" / "tiny-llama"


def test_a_folder_of_safetensors_is_planned_pulled_and_continued(done):
    assert done("pull", TINY) == {"path": str(TINY)}
    assert done("plan", TINY)["context"] == 256
    ids = ["--ids", "1,2,3", "--max-tokens", "4", "--ignore-eos"]
    answers = [done("generate", TINY, *ids, *quant)["ids"] for quant in ([], ["--quant", "f32"])]
    assert answers[0] == answers[1] and len(answers[0]) == 4


def test_features_that_webllm_does_not_know_are_refused_with_those_it_knows(failed, config_file):
    message = failed("plan", config_file, "--features", "shader-f16,f16")[2]
    assert "shader-f16, subgroups, timestamp-query" in message and "'f16'" in message


def test_a_folder_with_a_configuration_can_be_planned(done, config_file):
    assert done("plan", config_file.parent)["plans"] == done("plan", config_file)["plans"]


def test_smaller_limits_split_the_embedding(done, config_file):
    def embeds(limits):
        return done("plan", config_file, "--limits", limits)["plans"]["decode"]["kernels"]["embed"]

    assert embeds("default") == 1
    assert embeds("maxStorageBufferBindingSize=32768") == 2  # 1000 rows of 64 bytes of Q8_0


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{", "BadModel"),
        ("[]", "BadModel"),
        ("{}", "Unsupported"),
        (json.dumps({**CONFIG, "model_type": "nope"}), "Unsupported"),
        (json.dumps({**CONFIG, "hidden_size": "wide"}), "BadModel"),
        (json.dumps({**CONFIG, "num_hidden_layers": 10**9}), "BadModel"),
        (json.dumps({**CONFIG, "rope_scaling": {"rope_type": "llama3"}}), "BadModel"),
        (json.dumps({k: v for k, v in CONFIG.items() if k != "vocab_size"}), "BadModel"),
    ],
)
def test_a_configuration_that_makes_no_sense_ends_with_1(failed, tmp_path, text, kind):
    path = tmp_path / "config.json"
    path.write_text(text)
    assert failed("plan", path)[:2] == (1, kind)


def test_plan_refuses_the_context_that_load_refuses(failed, config_file):
    assert failed("plan", config_file, "--context", "2049")[:2] == (1, "RequestError")


async def test_a_made_up_checkpoint_has_the_tensors_of_a_real_one(model_file):
    source = FileSource(model_file)
    real = checkpoint_from_gguf(await read_gguf(source), source)
    made = checkpoint_from_config(real.config, "f32")
    assert {n: (t.shape, t.dtype, t.nbytes) for n, t in made.tensors.items()} == {
        n: (t.shape, t.dtype, t.nbytes) for n, t in real.tensors.items()
    }


def test_bench_hands_its_options_to_the_library(done, cli, plays, config_file, monkeypatch):
    asked = []

    async def run(open_device, checkpoint, request, *, random, note):
        asked.append((checkpoint.name, request, random, await open_device()))
        note("measuring")
        gpu = {"gpu_ms": 0.9, "gpu_ms_by_part": {"qkv": 0.25, "LM head": 0.5}}
        told = {"phase": "decode", "tokens": 4, "at_context": 8, "tokens_per_s_median": 9, "tokens_per_s_iqr": 2}
        return {"results": [told | gpu], "adapter": "Script", "copy_gb_per_s": 1.0}

    monkeypatch.setattr(bench, "run", run)
    device = plays(ScriptedDevice())
    flags = ["--prompt-tokens", "16,32", "--decode-tokens", "4", "--at-context", "8", "--repeats", "2"]
    result = done("bench", "--config", config_file, "--quant", "q8", *flags)
    assert result["quant"] == "q8"
    assert asked == [("llama q8", bench.Request([16, 32], 4, [8], 2), True, device)]
    text = cli("bench", "--config", config_file)[1]
    assert "1.0 GB/s" in text and "9.0 ± 1.0 tokens/s" in text
    assert "GPU 0.900 ms a token; in passes of their own qkv 0.250, LM head 0.500" in text


@pytest.fixture
def few_kernels(monkeypatch):
    """A self-test of one kernel."""
    monkeypatch.setattr("webllm.selftest.run.all_cases", lambda: [RMS_NORM])
    monkeypatch.setattr("webllm.selftest.speed.QUANTS", [])


def test_doctor_shows_the_adapter_and_ends_with_1_where_a_kernel_is_wrong(cli, plays, few_kernels, monkeypatch):
    """The device of these tests computes nothing. tests/kernels/test_selftest.py runs the command on a real one."""
    monkeypatch.setattr("webllm.device.native.list_adapters", lambda power_preference: [])
    plays(ScriptedDevice())
    status, out, _ = cli("doctor", "--json")
    [adapter], [*_, kernel] = (json.loads(out)[key] for key in ("adapters", "kernels"))
    assert adapter["name"] == "Script" and adapter["features"] == ["shader-f16"]
    assert adapter["limits"]["maxStorageBufferBindingSize"] == 128 << 20
    assert (kernel["kernel"], kernel["variants"], kernel["ok"], status) == (
        "rms_norm",
        ["reduce.plain", "half.f32"],
        False,
        1,
    )
    _, text, _ = cli("doctor")
    assert "Script (Paper" in text
    assert re.search(r"^WRONG +rms_norm +reduce.plain ", text, re.M)


def test_doctor_lists_the_adapters_that_are_not_used_after_the_one_that_is(cli, plays, few_kernels):
    """Those of this machine, and a scripted one."""
    device = plays(ScriptedDevice())
    first, *others = json.loads(cli("doctor", "--json")[1])["adapters"]
    assert first["name"] == device.info.name
    assert [other["name"] for other in others] == [other.info.name for other in list_adapters()] != []
    assert all(other["limits"]["maxStorageBufferBindingSize"] >= 128 << 20 for other in others)
    assert "not used:\n" in cli("doctor")[1]


def test_a_software_adapter_is_told_in_one_line_on_stderr(cli, few_kernels, monkeypatch):
    native._warn_of_software.cache_clear()
    monkeypatch.delenv("WEBLLM_ADAPTER", raising=False)
    if not list_adapters()[0].info.software:
        pytest.skip("this machine has a GPU")
    status, _, err = cli("doctor", "--json")
    lines = [line for line in err.splitlines() if "no GPU was found" in line]
    assert status == 0 and len(lines) == 1 and "SoftwareAdapterWarning" not in err
    assert "no GPU was found" not in cli("doctor", "--json")[2]


# In the browser


def test_site_says_where_it_lies(done, cli, tmp_path, model_file, monkeypatch):
    built = []
    monkeypatch.setattr(site, "build_site", lambda out, *, model, parts: built.append(model) or out)
    assert done("site", tmp_path / "out", "--model", model_file) == {"path": str(tmp_path / "out")}
    assert cli("site", tmp_path / "out")[1] == f"{tmp_path / 'out'}\n"
    assert built == [model_file, None]


def test_site_without_its_parts_ends_with_1(failed, tmp_path, monkeypatch):
    nowhere = site.Parts(tmp_path, tmp_path, tmp_path, tmp_path)
    monkeypatch.setattr(site.Parts, "find", lambda: nowhere)
    assert failed("site", tmp_path / "out")[:2] == (1, "FetchError")


def test_demo_ends_with_the_demos_status(cli, monkeypatch):
    asked = []
    module = SimpleNamespace(run_demo=lambda headless, port: asked.append((headless, port)) or 1)
    monkeypatch.setitem(sys.modules, "webllm.demo", module)
    assert cli("demo", "--headless", "--port", "8123")[0] == 1
    assert cli("demo")[0] == 1
    assert asked == [(True, 8123), (None, 0)]


def test_demo_without_a_web_server_says_what_to_install(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "webllm.demo", None)
    status, _, err = cli("demo")
    assert status == 1 and "webllm[serve]" in err and "Traceback" not in err
