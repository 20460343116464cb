"""The peer's half of scripts/check_interop: runs inside an environment that scripts/peers makes.

Reads a JSON list of jobs on stdin, prints one JSON list of answers on stdout:
  {"do": "base"}                                     writes the base model's logits, or those of the folder "model"
  {"do": "load", "adapter": D}                       writes the logits with the adapter folder D
  {"do": "make", "adapter": D, "lora": {...}}        makes an adapter with random B, saves it to D, writes its logits
Every job has "logits": the safetensors file to write, tensor 'logits' [rows, positions, vocabulary] float32.
"""
import argparse
import json
import pathlib
import sys
import warnings

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "bench"))
import peer_reference  # noqa: E402


@torch.no_grad()
def write_logits(model, rows, path):
    ids = torch.tensor([row[0] for row in rows])
    save_file({"logits": model(input_ids=ids, use_cache=False).logits.float().contiguous()}, path)


@torch.no_grad()
def randomise(model, seed):
    """B and an embedding's A away from zero, magnitudes and whole weights away from the base's: a fresh adapter would
    change nothing."""
    draw = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_B" in name or "lora_embedding_" in name:
            weight.copy_(0.05 * torch.randn(weight.shape, generator=draw))
        elif "lora_magnitude" in name or ".modules_to_save." in name:
            weight.mul_(1 + 0.05 * torch.randn(weight.shape, generator=draw))


def run(job, args, rows):
    """The warnings of loading are part of the answer: peft says there which weights found no place."""
    base = peer_reference.load(job.get("model", args.model))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if job["do"] == "base":
            model = base
        elif job["do"] == "load":
            model = PeftModel.from_pretrained(base, job["adapter"])
        else:
            torch.manual_seed(7)
            model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, bias="none", **job["lora"]))
            randomise(model, seed=11)
            model.eval()
            model.save_pretrained(job["adapter"])
    write_logits(model.eval(), rows, job["logits"])
    weights = sum(weight.numel() for name, weight in model.named_parameters() if "lora_" in name)
    relevant = [str(item.message)[:300] for item in said if "missing" in str(item.message) or "unexpected" in str(item.message)]
    return {"adapter_parameters": weights, "warnings": relevant}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = peer_reference.read_rows(args.dataset)
    answers = []
    for job in json.load(sys.stdin):
        try:
            answers.append(run(job, args, rows))
        except Exception as error:  # one variant that fails must not hide the others
            answers.append({"error": f"{type(error).__name__}: {str(error)[:300]}"})
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
