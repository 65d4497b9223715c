"""Uploading what a run left to the Hugging Face hub, and asking before it starts whether that will go."""

from pathlib import Path

from huggingface_hub import HfApi

LEFT_OUT = ["checkpoints/*", "tensorboard/*", "skipped/*", "*.partial"]


def check_hub(repository: str) -> None:
    """Raises OSError where the hub cannot be reached, knows no token, or the token's owner may not write there."""
    try:
        user = HfApi().whoami()
    except Exception as error:
        raise OSError(
            f"`push_to_hub` cannot reach the hub as a known user: {_first_line(error)}. Log in with `hf auth login`, "
            "or remove the key and upload later."
        ) from error
    owners = {user.get("name"), *(organisation.get("name") for organisation in user.get("orgs") or ())}
    if repository.partition("/")[0] not in owners:
        raise OSError(
            f"`push_to_hub` may not write to {repository}: expected a repository of "
            f"{', '.join(sorted(filter(None, owners)))}. Change its owner, or log in with another token."
        )


def upload(folder: Path, repository: str) -> str:
    """Uploads a run's folder without its checkpoints and returns the address.

    Raises OSError where that fails, saying how to do it later: the folder stays as it is.
    """
    api = HfApi()
    try:
        url = api.create_repo(repository, exist_ok=True)
        api.upload_folder(
            repo_id=repository, folder_path=folder, ignore_patterns=LEFT_OUT, commit_message="Upload adapter"
        )
    except Exception as error:
        raise OSError(
            f"`push_to_hub` failed: {_first_line(error)}. Nothing is lost, the run is in {folder}. Upload it later: "
            f"hf upload {repository} {folder} --exclude 'checkpoints/*'"
        ) from error
    return str(url)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")
