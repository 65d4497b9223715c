"""Fine-tunes Qwen2.5-VL on questions about images, with TRL's SFTTrainer and loss on the answers alone.

Data, one row per line, paths relative to the file; images go before the first question:
    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}], "images": ["a.png"]}
"""

import argparse
import json
from pathlib import Path

import torch
from datasets import Dataset, Image, List
from transformers import AutoModelForImageTextToText, AutoProcessor
from trl import SFTConfig, SFTTrainer

from moka_peft import MokaConfig


def read_rows(path: str) -> Dataset:
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["images"] = [str(Path(path).parent / name) for name in row["images"]]
    return Dataset.from_list(rows).cast_column("images", List(Image()))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="JSON lines of messages and images")
    parser.add_argument("--model", default="Qwen/Qwen2.5-VL-7B-Instruct")
    parser.add_argument("--output", default="adapter")
    parser.add_argument("--tiny", action="store_true", help="a tiny random model and made-up data, on the CPU")
    args = parser.parse_args(arguments)
    if args.tiny:
        from tiny import qwen2_5_vl

        args.model, args.data = qwen2_5_vl(args.output)

    settings = SFTConfig(
        output_dir=args.output,
        assistant_only_loss=True,
        max_length=None,  # cutting a row could cut its image tokens
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1 if args.tiny else 16,
        learning_rate=1e-4,
        max_steps=3 if args.tiny else -1,
        logging_steps=1 if args.tiny else 10,
        bf16=torch.cuda.is_available(),
        report_to="none",
    )
    trainer = SFTTrainer(
        model=AutoModelForImageTextToText.from_pretrained(args.model, dtype="auto"),
        args=settings,
        train_dataset=read_rows(args.data),
        processing_class=AutoProcessor.from_pretrained(args.model),
        peft_config=MokaConfig(r=8, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]),
    )
    trainer.train()
    trainer.save_model(args.output)


if __name__ == "__main__":
    main()
