"""`moka generate`: one question about files of your own."""

from pathlib import Path
from typing import Annotated

import typer

from moka_peft.cli import quiet


def run(
    question: Annotated[str, typer.Argument(help="what to ask about the files")],
    adapter: Annotated[Path, typer.Option(help="folder of a finished run, or any adapter folder")],
    image: Annotated[list[Path] | None, typer.Option(help="image file; may be given several times")] = None,
    audio: Annotated[list[Path] | None, typer.Option(help="recording; may be given several times")] = None,
    video: Annotated[list[Path] | None, typer.Option(help="video file; may be given several times")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="longest answer, in tokens")] = 64,
) -> None:
    """Answer one question on files of your own."""
    from moka_peft.training import Conversation, load_adapted
    from moka_peft.training.reading import media_of

    quiet()
    conversation = Conversation(*load_adapted(adapter), max_new_tokens, media_of(adapter))
    for kind, paths in (("image", image), ("audio", audio), ("video", video)):
        for path in paths or ():
            conversation.attach(kind, path)
    print(conversation.ask(question))
