"""Fine-tunes Qwen2.5-Omni's thinker on questions about video and audio, with the Trainer and loss on the answers alone.

Data, one row per line, paths relative to the file; media go before the first question:
    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}],
     "videos": ["a.mp4"], "audios": ["a.wav"]}
"""

import argparse
import json
from pathlib import Path

import av
import numpy as np
import soundfile
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoProcessor, Qwen2_5OmniThinkerForConditionalGeneration, Trainer, TrainingArguments

RATE_HZ, FRAMES_PER_SECOND = 16_000, 2


def read_rows(path: str) -> list[dict]:
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    for row in rows:
        files = [(kind, str(Path(path).parent / name)) for kind in ("video", "audio") for name in row[f"{kind}s"]]
        first = next(message for message in row["messages"] if message["role"] == "user")
        parts = [{"type": kind, kind: name} for kind, name in files]
        first["content"] = [*parts, {"type": "text", "text": first["content"]}]
        row["videos"] = [name for kind, name in files if kind == "video"]
        row["audios"] = [name for kind, name in files if kind == "audio"]
    return rows


def read_video(path: str) -> np.ndarray:
    """[frames, height, width, 3], an even number of frames."""
    with av.open(path) as file:
        stream = file.streams.video[0]
        step = max(round(stream.average_rate / FRAMES_PER_SECOND), 1)
        decoded = enumerate(file.decode(stream))
        frames = [frame.to_ndarray(format="rgb24") for index, frame in decoded if index % step == 0]
    return np.stack([*frames, frames[-1]][: len(frames) + len(frames) % 2])


def read_audio(path: str) -> np.ndarray:
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    if rate_hz != RATE_HZ:
        raise ValueError(f"{path}: expected {RATE_HZ} Hz, got {rate_hz}. Convert it: ffmpeg -i IN -ar {RATE_HZ} OUT")
    return samples.mean(axis=1)


def collate(processor, rows: list[dict]) -> dict[str, torch.Tensor]:
    """A batch padded on the left, so that every row ends with its answer: labels are -100 before it."""
    texts = [processor.apply_chat_template(row["messages"], tokenize=False) for row in rows]
    audio = [read_audio(path) for row in rows for path in row["audios"]]
    videos = [read_video(path) for row in rows for path in row["videos"]]
    batch = processor(text=texts, audio=audio, videos=videos, padding=True, padding_side="left", return_tensors="pt")
    labels = torch.full_like(batch["input_ids"], -100)
    for label, ids, row, text in zip(labels, batch["input_ids"], rows, texts, strict=True):
        prompt = processor.apply_chat_template(row["messages"][:-1], tokenize=False, add_generation_prompt=True)
        answer = len(processor.tokenizer(text.removeprefix(prompt), add_special_tokens=False)["input_ids"])
        label[-answer:] = ids[-answer:]
    return {**batch, "labels": labels}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="JSON lines of messages, videos and audios")
    parser.add_argument("--model", default="Qwen/Qwen2.5-Omni-7B")
    parser.add_argument("--output", default="adapter")
    parser.add_argument("--tiny", action="store_true", help="a tiny random model and made-up data, on the CPU")
    args = parser.parse_args(arguments)
    if args.tiny:
        from tiny import qwen2_5_omni

        args.model, args.data = qwen2_5_omni(args.output)

    processor = AutoProcessor.from_pretrained(args.model)
    model = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(args.model, dtype="auto")
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj"]))
    settings = TrainingArguments(
        output_dir=args.output,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=1 if args.tiny else 8,
        learning_rate=1e-4,
        max_steps=3 if args.tiny else -1,
        logging_steps=1 if args.tiny else 10,
        bf16=torch.cuda.is_available(),
        remove_unused_columns=False,
        report_to="none",
    )
    trainer = Trainer(
        model, settings, train_dataset=read_rows(args.data), data_collator=lambda rows: collate(processor, rows)
    )
    trainer.train()
    trainer.save_model(args.output)


if __name__ == "__main__":
    main()
