"""LoRA training steps with transformers and peft on rows of tokens; prints one JSON object with speed and memory.

Runs inside an environment that scripts/peers makes. Every linear layer of attention, dense MLP, shared and routed
experts gets an adapter; AdamW, clipping at 1.0, rows in the file's order, padded to the longest of a batch where they
differ, gradient checkpointing on request. The adapter is saved at the end.

  tokens_per_second        tokens without padding over the time of the steps after the first two
  first_step_seconds       from the start of the process (imports and loading included) to the end of step 1
  peak_rss_bytes           largest resident memory of the process
"""
import argparse
import json
import os
import resource
import tempfile
import time

LAUNCHED = time.time()  # replaced by the kernel's own figure below where /proc has it


def seconds_since_launch():
    """Age of this process, from /proc; interpreter start-up is part of what a user waits for."""
    try:
        with open("/proc/self/stat", encoding="ascii") as file:
            started = int(file.read().rsplit(")", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK")
        with open("/proc/uptime", encoding="ascii") as file:
            return float(file.read().split()[0]) - started
    except OSError:
        return time.time() - LAUNCHED


TARGETS = ["q_a_proj", "q_b_proj", "q_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", required=True, help='rows of {"input_ids", "labels"}')
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--checkpoint", action="store_true", help="gradient checkpointing")
    args = parser.parse_args()

    import torch
    from peft import LoraConfig, get_peft_model

    import peer_reference

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = peer_reference.load(args.model, {"f32": torch.float32, "bf16": torch.bfloat16}[args.dtype])
    loaded = seconds_since_launch()
    present = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    present |= {"gate_proj", "up_proj", "down_proj"}
    model = get_peft_model(model, LoraConfig(r=args.rank, lora_alpha=args.alpha, lora_dropout=0.0, bias="none",
                                             target_modules=[name for name in TARGETS if name in present],
                                             task_type="CAUSAL_LM"))
    if args.checkpoint:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=args.learning_rate, weight_decay=0.0)
    rows = [(ids, labels, [1] * len(ids))
            for ids, labels in peer_reference.read_rows(args.dataset, args.batch * args.steps)]
    times, tokens, losses, first = [], [], [], None
    for step in range(args.steps):
        picked = [rows[(step * args.batch + place) % len(rows)] for place in range(args.batch)]
        longest = max(len(row[0]) for row in picked)
        ids, labels, mask = (torch.tensor([row[part] + [fill] * (longest - len(row[0])) for row in picked])
                             for part, fill in ((0, 0), (1, -100), (2, 0)))
        tokens.append(sum(len(row[0]) for row in picked))
        # A mask that hides nothing costs attention its fast path.
        mask = None if bool(mask.all()) else mask
        begin = time.perf_counter()
        loss = model(input_ids=ids, labels=labels, attention_mask=mask, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        times.append(time.perf_counter() - begin)
        first = first or seconds_since_launch()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
    print(json.dumps({
        "tokens_per_second": sum(tokens[2:]) / sum(times[2:]), "first_step_seconds": first, "load_seconds": loaded,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "step_seconds": times,
        "losses": losses, "trainable_parameters": sum(weight.numel() for weight in weights), "dtype": args.dtype,
    }))


if __name__ == "__main__":
    main()
