"""The reference that we compare with: transformers' DeepSeek classes with their known errors put right.

Runs inside the environments that scripts/peers makes. Corrected at run time, where the version has the error:
  1. V3 router: experts of dropped groups are masked with 0.0, so that with negative selection biases a dropped
     expert can win; -inf here, as in the published DeepSeek code.
  2. V2 attention: the YaRN factor m^2 on the softmax scale is missing.
  3. Loading in bf16 casts the selection bias to bf16; it stays float32 here.
"""
import json
import pathlib

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM
from transformers.models.deepseek_v2 import modeling_deepseek_v2 as v2
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as v3


@torch.no_grad()
def choose_experts(self, scores):
    """The V3 choice: best groups by the sum of their two best, then the best experts inside them."""
    choice = scores.view(-1, self.n_routed_experts) + self.e_score_correction_bias
    groups = choice.unflatten(1, (self.n_group, -1))
    kept = groups.topk(2, dim=-1).values.sum(-1).topk(self.topk_group, dim=-1).indices
    dropped = torch.ones(groups.shape[:2], dtype=torch.bool, device=scores.device).scatter(1, kept, False)
    choice = groups.masked_fill(dropped.unsqueeze(-1), float("-inf")).flatten(1)
    return choice.topk(self.top_k, dim=-1, sorted=False).indices


def correct():
    """Puts corrections 1 and 2 in place; once is enough, twice does no harm."""
    if hasattr(v3.DeepseekV3TopkRouter, "get_topk_indices"):  # gone, and right, in version 5
        v3.DeepseekV3TopkRouter.get_topk_indices = choose_experts
    if not hasattr(v2, "yarn_apply_mscale") and not hasattr(v2.DeepseekV2Attention, "uncorrected_init"):
        v2.DeepseekV2Attention.uncorrected_init = v2.DeepseekV2Attention.__init__

        def scaled_init(self, config, *args, **kwargs):
            self.uncorrected_init(config, *args, **kwargs)
            rope = config.rope_scaling or {}
            if rope.get("mscale_all_dim"):
                self.scaling *= v3.yarn_get_mscale(rope["factor"], rope["mscale_all_dim"]) ** 2

        v2.DeepseekV2Attention.__init__ = scaled_init


def stored(folder, name):
    """One tensor of a checkpoint folder as it is on disk."""
    index = pathlib.Path(folder) / "model.safetensors.index.json"
    shard = json.loads(index.read_text())["weight_map"][name] if index.exists() else "model.safetensors"
    with safe_open(pathlib.Path(folder) / shard, "pt") as file:
        return file.get_tensor(name)


def load(folder, dtype=torch.float32, attention="sdpa"):
    """The base model in evaluation mode, corrected."""
    correct()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention).eval()
    for name, module in model.named_modules():
        if hasattr(module, "e_score_correction_bias"):
            bias = stored(folder, f"{name}.e_score_correction_bias").float()
            module.e_score_correction_bias = bias.to(module.weight.device)
    return model


def read_rows(path, count=None):
    """[(ids, labels)] of a pre-tokenised JSONL."""
    rows = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            rows.append((row["input_ids"], row["labels"]))
            if count is not None and len(rows) == count:
                break
    return rows
