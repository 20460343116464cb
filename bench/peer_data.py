"""The peer's side of convert_data: rows converted by Python's json, jinja2 and tokenizers, a block of rows at a time.

Work: sharegpt_to_messages, messages_to_text, messages_to_tokens. Rendering is apply_chat_template's: the template compiled
once, in transformers' sandbox. Tokens are encoded in batches, so that the library uses all its threads. Prints the seconds
of the loop, imports and loading left out.
"""
import argparse
import json
import time

ROLES = {"human": "user", "gpt": "assistant", "system": "system", "observation": "tool"}


def renderer(path):
    import jinja2
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    environment.globals["raise_exception"] = raise_exception
    return environment.from_string(open(path, encoding="utf-8").read())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work")
    parser.add_argument("source")
    parser.add_argument("out")
    parser.add_argument("--template")
    parser.add_argument("--tokenizer")
    args = parser.parse_args()
    template = renderer(args.template) if args.template else None
    tokenizer = None
    if args.tokenizer:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(f"{args.tokenizer}/tokenizer.json")

    def render(row):
        return template.render(messages=row["messages"], bos_token="<｜begin▁of▁sentence｜>",
                               eos_token="<｜end▁of▁sentence｜>", add_generation_prompt=False)

    def flush(texts, out):
        for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
            out.write(json.dumps({"input_ids": encoding.ids, "labels": encoding.ids}) + "\n")
        texts.clear()

    start = time.perf_counter()
    rows = 0
    texts = []
    with open(args.source, encoding="utf-8") as source, open(args.out, "w", encoding="utf-8") as out:
        for line in source:
            row = json.loads(line)
            rows += 1
            if args.work == "sharegpt_to_messages":
                messages = [{"role": ROLES[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]
                out.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
            elif args.work == "messages_to_text":
                out.write(json.dumps({"text": render(row)}, ensure_ascii=False) + "\n")
            else:
                texts.append(render(row))
                if len(texts) == 1000:
                    flush(texts, out)
        if texts:
            flush(texts, out)
    print(json.dumps({"rows": rows, "seconds": time.perf_counter() - start}))


if __name__ == "__main__":
    main()
