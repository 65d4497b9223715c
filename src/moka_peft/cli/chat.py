"""`moka chat`: a conversation with a trained model, typed in the terminal."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moka_peft.cli import quiet

if TYPE_CHECKING:
    from moka_peft.training import Conversation

COMMANDS = """\
/image PATH, /audio PATH, /video PATH   attach a file to the next question
/reset                                  forget the conversation
/exit                                   leave (also Ctrl-D)"""


def run(
    adapter: Annotated[Path, typer.Option(help="folder of a finished run, or any adapter folder")],
    max_new_tokens: Annotated[int, typer.Option(min=1, help="longest answer, in tokens")] = 256,
) -> None:
    """Talk to a trained model, with media, over several turns."""
    from moka_peft.training import Conversation, load_adapted
    from moka_peft.training.reading import media_of

    quiet()
    conversation = Conversation(*load_adapted(adapter), max_new_tokens, media_of(adapter))
    print(COMMANDS)
    while (line := _read_line()) not in (None, "/exit"):
        try:
            reply = respond(conversation, line or "")
        except (OSError, ValueError) as error:
            print(f"moka: {error}", file=sys.stderr)
        else:
            if reply:
                print(reply)


def respond(conversation: "Conversation", line: str) -> str:
    """What one typed line does: a command acts on the conversation, anything else is a question."""
    command, _, rest = line.strip().partition(" ")
    if command in ("/image", "/audio", "/video"):
        conversation.attach(command[1:], Path(rest.strip()).expanduser())
        return f"attached {rest.strip()}"
    if command == "/reset":
        conversation.reset()
        return "forgotten"
    if command.startswith("/"):
        return f"no such command: {command}\n{COMMANDS}"
    return conversation.ask(line.strip()) if line.strip() else ""


def _read_line() -> str | None:
    """The next line; None at the end of the input."""
    try:
        return input("> " if sys.stdin.isatty() else "")
    except EOFError:
        return None
