"""Rows as token ids with masked prompts, by the peer's own tokenizer: {"input_ids", "labels"} a line.

The source is a JSONL of messages (the last answer is learnt), or PubMedQA's JSON object (question and contexts are the
prompt, the long answer is learnt). Rendering is the plain DeepSeek form: <bos><|User|>prompt<|Assistant|></think>answer<eos> (V3.1).
"""
import argparse
import json

from tokenizers import Tokenizer


def conversations(path):
    text = open(path, encoding="utf-8").read()
    if path.endswith(".jsonl"):
        for line in text.splitlines():
            messages = json.loads(line)["messages"]
            yield messages[0]["content"], messages[-1]["content"]
        return
    for _, row in sorted(json.loads(text).items()):
        yield row["QUESTION"] + "\n" + "\n".join(row["CONTEXTS"]), row["LONG_ANSWER"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--threads")
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(f"{args.tokenizer}/tokenizer.json")
    begin, user, assistant, close, end = (tokenizer.token_to_id(token) for token in (
        "<｜begin▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "</think>", "<｜end▁of▁sentence｜>"))
    with open(args.out, "w", encoding="utf-8") as out:
        for prompt, answer in conversations(args.source):
            head = [begin, user, *tokenizer.encode(prompt, add_special_tokens=False).ids, assistant, close]
            tail = [*tokenizer.encode(answer, add_special_tokens=False).ids, end]
            out.write(json.dumps({"input_ids": head + tail, "labels": [-100] * len(head) + tail}) + "\n")


if __name__ == "__main__":
    main()
