"""What processors write around media is not instruction."""

from types import SimpleNamespace

import pytest
import torch

from moka_peft.routing import RoutingSpec, route


def message(role, *parts):
    return {"role": role, "content": [{"type": p} if p == "image" else {"type": "text", "text": p} for p in parts]}


class TilingProcessor:
    """Writes an image as numbered tiles of placeholders between line ends, as Gemma's and Idefics' do."""

    image_processor, image_token = object(), "<image>"

    def __init__(self, tokenizer):
        self.tokenizer, self.apply_chat_template = tokenizer, tokenizer.apply_chat_template
        self.chat_template = tokenizer.chat_template

    def __call__(self, text, images, tiles=1, add_special_tokens=False):
        tiles = "".join(f"<tile_{tile + 1}>" + "<soft>" * 5 for tile in range(tiles))
        texts = [one.replace("<image>", f"\n\n{tiles}\n\n") for one in text]
        return self.tokenizer(texts, add_special_tokens=add_special_tokens)


def test_what_a_processor_writes_around_images_is_not_instruction(turns_tokenizer):
    tokenizer = turns_tokenizer("<image>", "<soft>", "<tile_1>", "<tile_2>")
    config = SimpleNamespace(image_token_id=tokenizer.convert_tokens_to_ids("<soft>"))
    processor = TilingProcessor(tokenizer)
    spec = RoutingSpec.from_pretrained(config, processor)
    messages = [message("user", "What is", "image", "in it?")]
    text = processor.apply_chat_template(messages, tokenize=False)
    ids = torch.tensor(processor(text=[text], images=[None], tiles=2)["input_ids"])
    routing = route(ids, spec)
    assert tokenizer.decode(ids[routing.is_instruction]).split() == ["What", "isin", "it?"]
    assert int(routing.is_media.sum()) == 10


class FilmingProcessor(TilingProcessor):
    """Writes a video as frames with their times, as Qwen3-VL's and GLM-V's do."""

    video_processor, video_token = object(), "<video>"

    def __init__(self, tokenizer, frame):
        super().__init__(tokenizer)
        self.frame = frame

    def __call__(self, text, videos=None, images=None, add_special_tokens=False):
        if images is not None:
            return super().__call__(text, images, add_special_tokens=add_special_tokens)
        frames = "".join(self.frame.format(second=second / 2) for second in range(8))
        texts = [one.replace("<video>", frames) for one in text]
        return self.tokenizer(texts, add_special_tokens=add_special_tokens)


def filmed(tokenizer, frame, **config):
    """Spec of the processor with this frame, and what it reads as said in a video between words."""
    processor = FilmingProcessor(tokenizer, frame)
    names = {"video_token_id": "<video>", "image_token_id": "<soft>", **config}
    ids = {name: tokenizer.convert_tokens_to_ids(text) for name, text in names.items()}
    spec = RoutingSpec.from_pretrained(SimpleNamespace(**ids), processor)
    parts = [{"type": "text", "text": "If a < 5 in"}, {"type": "video"}, {"type": "text", "text": "why?"}]
    text = processor.apply_chat_template([{"role": "user", "content": parts}], tokenize=False)
    processor.frame = frame.replace("{second}", "1{second}7")  # other numbers than the probe's
    ids = torch.tensor(processor(text=[text], videos=[None])["input_ids"])
    routing = route(ids, spec)
    assert int(routing.is_media.sum()) == 8 * frame.count("<video>")
    return "".join(tokenizer.decode(ids[routing.is_instruction]).split())


def test_times_between_the_frames_of_a_video_are_not_instruction(turns_tokenizer):
    tokenizer = turns_tokenizer("<image>", "<soft>", "<video>", "<tile_1>", "<frame>", "</frame>", "<film>", "</film>")
    assert filmed(tokenizer, "<{second} seconds><frame><video></frame>") == "Ifa<5inwhy?"
    bare = "{second}<frame><video></frame>"
    with pytest.raises(ValueError, match="the number in '.*' around media cannot be told from a number"):
        filmed(tokenizer, bare)
    written = "'\\n\\n<' + part.type + '>\\n\\n'"
    assert written in tokenizer.chat_template
    tokenizer.chat_template = tokenizer.chat_template.replace(written, "'<film><' + part.type + '></film>'")
    assert filmed(tokenizer, bare, video_start_token_id="<film>", video_end_token_id="</film>") == "Ifa<5inwhy?"


def test_processor_that_fails_on_an_image_is_named(turns_tokenizer):
    tokenizer = turns_tokenizer("<image>", "<soft>")
    processor = TilingProcessor(tokenizer)
    processor.image_token = None
    config = SimpleNamespace(image_token_id=tokenizer.convert_tokens_to_ids("<image>"))
    assert RoutingSpec.from_pretrained(config, processor)
    processor = type("Failing", (TilingProcessor,), {"__call__": lambda self, **inputs: 1 / 0})(tokenizer)
    with pytest.raises(
        ValueError, match="the processor fails on '<image>' with one image: division by zero.*MokaConfig"
    ):
        RoutingSpec.from_pretrained(config, processor)
