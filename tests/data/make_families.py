"""Makes tests/data/families/: what `transformers` saves of each case in tests/models/families.py, and what it computes.

    pip install torch transformers && python tests/data/make_families.py [CASE ...]

A file has config.json, names and shapes of the tensors in model.safetensors, and logits and greedy ids in float32 on
the CPU. The weights follow from the names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.models.families import CASES, POSITIONS, PROMPT, Case, weight

OUT = Path(__file__).parent / "families"


def make(name: str, case: Case) -> dict[str, Any]:
    kwargs = {key: value for key, value in {**case.sizes, **case.config}.items() if value is not None}
    config = transformers.CONFIG_MAPPING[case.family](**kwargs)
    with TemporaryDirectory() as folder:
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        file = Path(folder) / "model.safetensors"
        shapes = {key: values.shape for key, values in load_file(file).items()}
        save_file({key: weight(key, shape, case.norm) for key, shape in shapes.items()}, file, {"format": "pt"})
        saved = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    ids = np.random.RandomState(5).randint(3, case.sizes["vocab_size"], PROMPT).tolist()
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, list(POSITIONS)].tolist()
        greedy: list[int] = []
        for _ in range(case.greedy):
            greedy.append(int(model(torch.tensor([ids + greedy])).logits[0, -1].argmax()))
    return {
        "transformers": transformers.__version__,
        "config": saved,
        "tensors": shapes,
        "ids": ids,
        "logits": [[float(f"{value:.7g}") for value in row] for row in logits],
        "greedy": greedy,
    }


torch.set_num_threads(1)
OUT.mkdir(exist_ok=True)
for name in sys.argv[1:] or CASES:
    made = make(name, CASES[name])
    print(name, len(made["tensors"]), made["greedy"][:10])
    (OUT / f"{name}.json").write_text(json.dumps(made) + "\n", encoding="utf-8")
