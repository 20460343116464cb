"""PEFT's way to merge: load the model, load the adapter, merge_and_unload, save.

usage: peer_merge.py make MODEL ADAPTER RANK            a random adapter of every projection
       peer_merge.py merge MODEL ADAPTER TARGET THREADS  prints {"seconds": ..., "peak_rss_bytes": ...}, imports not counted
"""
import json
import resource
import sys
import time

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

TARGETS = ["q_a_proj", "q_b_proj", "q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)


@torch.no_grad()
def make(model, adapter, rank):
    torch.manual_seed(3)
    tuned = get_peft_model(load(model), LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules=TARGETS))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            weight.copy_(0.01 * torch.randn(weight.shape))
    tuned.save_pretrained(adapter)


def merge(model, adapter, target, threads):
    torch.set_num_threads(threads)
    begin = time.perf_counter()
    PeftModel.from_pretrained(load(model), adapter).merge_and_unload().save_pretrained(target)
    seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        merge(sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]))
