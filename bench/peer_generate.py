"""Greedy answers with transformers: prompts are the masked tokens of each row, padded to the left in batches.

Prints one JSON: rows_per_second of generation alone (start and loading not counted) and the number of new tokens.
"""
import argparse
import json
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--max-new-tokens", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    import torch

    import peer_reference

    torch.set_num_threads(args.threads)
    model = peer_reference.load(args.model, torch.float32)
    prompts = []
    with open(args.dataset, encoding="utf-8") as rows:
        for line in rows:
            row = json.loads(line)
            prompts.append([token for token, label in zip(row["input_ids"], row["labels"]) if label == -100])
    end = model.config.eos_token_id
    new = 0
    begin = time.perf_counter()
    with torch.inference_mode():
        for at in range(0, len(prompts), args.batch):
            part = prompts[at:at + args.batch]
            longest = max(map(len, part))
            ids = torch.tensor([[end] * (longest - len(row)) + row for row in part])
            mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in part])
            answers = model.generate(input_ids=ids, attention_mask=mask, do_sample=False, pad_token_id=end,
                                     max_new_tokens=args.max_new_tokens)
            new += int((answers[:, longest:] != end).sum())
    seconds = time.perf_counter() - begin
    print(json.dumps({"rows_per_second": len(prompts) / seconds, "tokens": new, "generation_seconds": seconds}))


if __name__ == "__main__":
    main()
