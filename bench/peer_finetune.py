"""LoRA training steps with transformers and peft on rows of tokens; prints one JSON object with speed and memory.

Runs inside an environment that scripts/peers makes. Every linear layer of attention, dense MLP, shared and routed
experts gets an adapter; AdamW, clipping at 1.0, no gradient checkpointing, no padding, rows in the file's order.

  tokens_per_second        tokens of a step over the median time of the steps after the first two
  first_step_seconds       from the start of the process (imports and loading included) to the end of step 1
  peak_rss_bytes           largest resident memory of the process
"""
import argparse
import json
import os
import resource
import statistics
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
    parser.add_argument("--dataset", required=True, help='rows of {"input_ids", "labels"}, all of one length')
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--threads", type=int, default=2)
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
    model.train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=args.learning_rate, weight_decay=0.0)
    rows = peer_reference.read_rows(args.dataset, args.batch * args.steps)
    times, losses, first = [], [], None
    for step in range(args.steps):
        picked = [rows[(step * args.batch + place) % len(rows)] for place in range(args.batch)]
        ids, labels = (torch.tensor([row[part] for row in picked]) for part in (0, 1))
        begin = time.perf_counter()
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        times.append(time.perf_counter() - begin)
        first = first or seconds_since_launch()
    tokens = args.batch * len(rows[0][0])
    steady = times[2:] or times
    print(json.dumps({
        "tokens_per_second": tokens / statistics.median(steady), "first_step_seconds": first, "load_seconds": loaded,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "step_seconds": times,
        "losses": losses, "trainable_parameters": sum(weight.numel() for weight in weights), "dtype": args.dtype,
    }))


if __name__ == "__main__":
    main()
