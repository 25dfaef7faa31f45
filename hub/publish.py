"""The only place that writes to the Hub."""

from collections.abc import Sequence
from pathlib import Path

from open_ner.tools.errors import UserError


def publish_folder(
    folder: str | Path, repo_id: str, repo_type: str = "model", private: bool = True, stale: Sequence[str] = ()
) -> str:
    """Upload a folder in one commit; files that were uploaded before, also by an interrupted push, are not sent again.

    Args:
        folder: the folder; its checkpoints, `runs/` and temporary files are not uploaded.
        repo_id: the repository, which is created if it does not exist.
        repo_type: "model", "dataset" or "space".
        private: whether a new repository is private.
        stale: patterns of files to delete from the repository if they are not in the folder.

    Returns:
        A line for the user with the repository and the revision.

    Raises:
        UserError: folder, token or permission are missing, or the Hub cannot be reached.
    """
    from httpx2 import TransportError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils import get_token

    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: nothing to publish; build it first")
    require_token()
    api = HfApi(token=get_token())
    try:
        api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True)
        commit = api.upload_folder(
            folder_path=folder, repo_id=repo_id, repo_type=repo_type,
            commit_message=f"Upload {folder.name} by uniner-distill",
            ignore_patterns=["checkpoint-*/**", "runs/**", "*.partial"], delete_patterns=list(stale) or None,
        )  # fmt: skip
    except (HFValidationError, HfHubHTTPError) as error:
        raise UserError(f"{repo_id!r} cannot be published: {error}") from None
    except TransportError as error:
        raise UserError(f"the Hub at {api.endpoint} cannot be reached ({error}): run the same command again") from None
    return f"published {repo_id} ({'private if newly created' if private else 'public'}), revision {commit.oid}"


def require_token() -> None:
    """Raise UserError if there is no Hub token; call it before a long run that ends with an upload."""
    from huggingface_hub.utils import get_token

    if not get_token():
        raise UserError("no Hub token: set HF_TOKEN or run `hf auth login`, or run without --push_to_hub")
