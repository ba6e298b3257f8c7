"""A checkpoint that GPTQModel makes, gate and up apart, loads here to the numbers it reads."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from glm4q.engine import LLM

pytestmark = [
    pytest.mark.peers,
    pytest.mark.demo,
    pytest.mark.skipif(
        not importlib.util.find_spec("gptqmodel"),
        reason="GPTQModel is not installed: pip install glm4q[peers], which needs a C compiler",
    ),
]

PROMPT = [504, 3575, 282, 4649, 314]

MAKER = """
import json, sys, torch
from gptqmodel import GPTQModel, QuantizeConfig
source, output, prompt = json.load(sys.stdin)
model = GPTQModel.load(source, QuantizeConfig(bits=4, group_size=64))
text = {"input_ids": list(range(300, 400)), "attention_mask": [1] * 100}
model.quantize([dict(text) for _ in range(4)], batch_size=1)
model.save(output)
model = GPTQModel.load(output, device="cpu", dtype=torch.float32)
with torch.no_grad():
    logits = model.model(torch.tensor([prompt])).logits[0, -1]
print("LOGITS" + json.dumps(logits.float().tolist()))
"""


def test_logits_are_those_of_its_maker(shallow_demo: Path, tmp_path: Path) -> None:
    output = tmp_path / "made"
    ran = subprocess.run(
        [sys.executable, "-c", MAKER],
        input=json.dumps([str(shallow_demo), str(output), PROMPT]),
        capture_output=True,
        text=True,
        cwd=tmp_path,  # it writes its log there
        # It starts no worker on two cores unless told to.
        env={
            **os.environ,
            "TORCHDYNAMO_DISABLE": "1",
            "GPTQMODEL_CPU_WORKERS": "3",
            "OMP_NUM_THREADS": "1",
        },
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    theirs = torch.tensor(json.loads(ran.stdout.rpartition("LOGITS")[2].splitlines()[0]))
    llm = LLM.load(output, device="cpu", dtype="fp32", kernel="reference")
    ours = llm.new_runner()(torch.tensor([PROMPT]))[0]
    difference = (ours - theirs).square().mean().sqrt()
    assert difference < 0.005 * theirs.square().mean().sqrt()  # its kernel rounds its scales
