"""Publish folders on the Hub: each upload is one commit on top of the revision that was read before it.

    python -m hub.publish dataset runs/my-dataset/dataset org/my-dataset --tag v1
    python -m hub.publish model runs/my-model org/my-ner --public
    python -m hub.publish results runs/my-results org/my-results
    python -m hub.publish metric metrics/entity_f1 org/entity_f1
    python -m hub.publish space runs/space org/my-demo    # made by `make space`

A new repository is private. Running the same command again sends what changed, and completes an interrupted upload.
`--push_to_hub` of the other commands does the same. docs/publish.md lists the files that are uploaded.
No other module writes to the Hub.
"""

import argparse
import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from open_ner.tools.errors import UserError, run

from .contents import KINDS, RepoType, check_content, list_files, read_metadata

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import GitRefInfo, RepoFile

TOKENS = "https://huggingface.co/settings/tokens"
SILENCE = 300.0  # seconds without an answer after which an upload stops; the client itself would wait forever
PLACEHOLDERS, REVISION = ("path/or/hub-id", "path/to/this/folder"), "commit-or-tag"  # in the examples of a card
TAG = re.compile(r"(?!main$|[0-9a-f]{40}$)\w[\w.-]{0,99}")
INITIAL = (".gitattributes", "README.md", "LICENSE", "LICENSE.*")  # what the Hub itself puts into a new repository


def main() -> None:
    """Publish a folder, and print its address and revision."""
    parser = argparse.ArgumentParser(
        prog="python -m hub.publish", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=KINDS, help="what the folder is")
    parser.add_argument("folder", type=Path, help="the folder to publish")
    parser.add_argument("repo_id", metavar="org/name", help="the repository, which is created if it does not exist")
    parser.add_argument("--tag", help="name this version, for `revision=`")
    parser.add_argument("--public", action="store_true", help="let everyone read the repository")
    args = parser.parse_args()
    if args.kind == "results" and (args.folder / "table.md").is_file():
        from .results_card import write_results_card

        write_results_card(args.folder, args.repo_id)
    print(publish_folder(args.folder, args.repo_id, args.kind, not args.public, args.tag))


def publish_folder(
    folder: str | Path, repo_id: str, kind: str = "model", private: bool = True, tag: str | None = None
) -> str:
    """Upload the files of a folder that changed, in one commit on the revision that was read.

    Args:
        folder: a folder of this kind.
        repo_id: the repository as org/name; it is created if it does not exist.
        kind: a key of KINDS.
        private: whether a new repository is private. False also makes an existing one public.
        tag: a name for this version.

    Returns:
        A line for the user: address, visibility, revision, tag, and how many files were sent.

    Raises:
        UserError: the folder, name, card or token is wrong, the repository has other content or was changed meanwhile,
            or the Hub cannot be reached. Nothing was published then, unless the message says so.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.utils import get_session, get_token

    folder, what = Path(folder), KINDS[kind]
    files, others = list_files(folder, kind)
    require_upload(repo_id, tag)
    check_content(files, what.repo_type)
    get_session().timeout = SILENCE
    api = HfApi(token=get_token())
    with TemporaryDirectory() as work, one_line_errors(api, repo_id):
        card = files.get("README.md")
        validate_card(card, what.repo_type)
        sdk = read_metadata(files["README.md"]).get("sdk") if what.repo_type == "space" else None
        url = api.create_repo(
            repo_id, repo_type=what.repo_type, private=private, exist_ok=True, space_sdk=sdk and str(sdk)
        )
        title = f"Upload {kind} by uniner-distill"
        head, remote = read_repository(api, repo_id, what.repo_type, title)
        tags = api.list_repo_refs(repo_id, repo_type=what.repo_type).tags
        if card:
            files["README.md"] = Path(work) / "README.md"
            named = name_repository(card, repo_id, tag or newest([known.name for known in tags]))
            files["README.md"].write_text(named, encoding="utf-8")
        changed = {name: path for name, path in files.items() if not is_same(path, remote.get(name))}
        gone = [name for name in remote if name not in files and any(fnmatch(name, old) for old in what.replaced)]
        operations = [
            *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in changed.items()),
            *(CommitOperationDelete(path_in_repo=name) for name in gone),
        ]
        if tag:
            require_free_tag(tags, repo_id, tag, None if operations else head)
        if operations:
            head = api.create_commit(
                repo_id, operations, commit_message=title, repo_type=what.repo_type, parent_commit=head
            ).oid
    with one_line_errors(api, repo_id, f"revision {head} is published, but not yet its tag or visibility"):
        if tag:
            api.create_tag(repo_id, tag=tag, revision=head, repo_type=what.repo_type, exist_ok=True)
        if not private:
            api.update_repo_settings(repo_id, private=False, repo_type=what.repo_type)
        visible = "private" if api.repo_info(repo_id, repo_type=what.repo_type).private else "public"
    counts = f"{len(changed)} files sent, {len(files) - len(changed)} unchanged, {len(gone)} deleted"
    left = f"\nnot part of a {kind}, not sent: {', '.join(others[:9])}{' ...' * (len(others) > 9)}" if others else ""
    return f"published {url} ({visible}), revision {head}{f', tag {tag}' if tag else ''}: {counts}{left}"


def name_repository(card: Path, repo_id: str, tag: str | None) -> str:
    """Return a card's text, with the placeholders of its examples replaced by the repository's name and the tag."""
    text = card.read_text(encoding="utf-8")
    for placeholder in PLACEHOLDERS:
        text = text.replace(placeholder, repo_id)
    return text.replace(REVISION, tag) if tag else text


def check_names(repo_id: str, tag: str | None) -> None:
    """Raise UserError for a repository or tag that the Hub would not accept."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"{repo_id!r} is not a repository's name ({error}): write org/name") from None
    if repo_id.count("/") != 1:
        raise UserError(f"{repo_id!r} is not a repository's name: write org/name, with your user name or organization")
    if tag and not TAG.fullmatch(tag):
        raise UserError(f"--tag {tag!r} is not a version's name: write one like v1 or v1.2, of letters, digits, . - _")


def validate_card(card: Path | None, repo_type: RepoType) -> None:
    """Let the Hub check a card before anything is created there."""
    from huggingface_hub import RepoCard

    if card:
        try:
            RepoCard(card.read_text(encoding="utf-8")).validate(repo_type)
        except ValueError as error:
            raise UserError(f"{card}: the Hub does not accept its metadata: {error!s:.300}") from None


def read_repository(api: "HfApi", repo_id: str, repo_type: RepoType, title: str) -> tuple[str, "dict[str, RepoFile]"]:
    """Return the newest revision and its files by name; raises UserError if the files are not from this command."""
    from huggingface_hub.hf_api import RepoFile

    head = api.repo_info(repo_id, repo_type=repo_type).sha
    assert head is not None
    entries = api.list_repo_tree(repo_id, recursive=True, revision=head, repo_type=repo_type)
    remote = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
    foreign = [name for name in remote if not any(fnmatch(name, initial) for initial in INITIAL)]
    if foreign and title not in (commit.title for commit in api.list_repo_commits(repo_id, repo_type=repo_type)):
        raise UserError(f"{repo_id} has other content ({len(foreign)} files, such as {foreign[0]}), which this upload "
                        "would mix with: choose another name, or delete that repository first")  # fmt: skip
    return head, remote


def newest(tags: Iterable[str]) -> str | None:
    """Return the tag with the highest version number, v10 after v9; None if there is no tag."""
    return max(tags, key=lambda tag: [int(part) for part in re.findall(r"\d+", tag)], default=None)


def require_free_tag(tags: "Iterable[GitRefInfo]", repo_id: str, tag: str, head: str | None) -> None:
    """Raise UserError if the tag exists at another revision than `head`; `head` is None before a new commit."""
    for existing in tags:
        if existing.name == tag and existing.target_commit != head:
            raise UserError(f"{repo_id} has a tag {tag!r} already, of revision {existing.target_commit}: "
                            "choose another --tag, because users may have pinned this one")  # fmt: skip


def is_same(path: Path, remote: "RepoFile | None") -> bool:
    """Return whether a file equals that in the repository, by SHA-256 for LFS files and by git blob id for others."""
    if remote is None or remote.size != path.stat().st_size:
        return False
    with path.open("rb") as file:
        if remote.lfs:
            return hashlib.file_digest(file, "sha256").hexdigest() == remote.lfs.sha256
        return hashlib.sha1(b"blob %d\0" % remote.size + file.read()).hexdigest() == remote.blob_id


@contextmanager
def one_line_errors(api: "HfApi", repo_id: str, done: str = "the upload did not finish") -> Iterator[None]:
    """Turn errors of the Hub or the network into a UserError with a remedy; `done` says what has been published."""
    from httpx2 import TransportError
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except OfflineModeIsEnabled:
        raise UserError("HF_HUB_OFFLINE is set, so the Hub is not asked: unset it to publish") from None
    except (HfHubHTTPError, TransportError, RuntimeError) as error:
        # the client wraps the error of an upload in a RuntimeError; after retries it raises the last error
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        raise UserError(f"{repo_id}: {done}: {_explain(cause, api.endpoint)}") from None


def _explain(error: BaseException, endpoint: str) -> str:
    from huggingface_hub.errors import HfHubHTTPError

    again = "run the same command again"
    if not isinstance(error, HfHubHTTPError):
        return f"the Hub at {endpoint} cannot be reached ({type(error).__name__}: {error!s:.200}): {again}"
    status, said = error.response.status_code, f"{error.server_message or error!s:.200}"
    reasons = {
        401: f"the Hub does not accept the token ({said}): make one with write access at {TOKENS}, and set HF_TOKEN",
        402: f"the Hub asks for a paid plan ({said})",
        403: f"the token may not write there ({said}): make one with write access at {TOKENS}, and set HF_TOKEN",
        409: f"the repository was changed meanwhile ({said}): {again}",
        412: f"somebody else pushed meanwhile ({said}): {again}",
    }
    return reasons.get(status) or f"the Hub answered {status} ({said}): {again}"


def require_upload(repo_id: str, tag: str | None = None) -> None:
    """Raise UserError for an invalid name or a missing token; call it before a long run that ends with an upload."""
    from huggingface_hub.utils import get_token

    check_names(repo_id, tag)
    if not get_token():
        raise UserError("no Hub token: set HF_TOKEN or run `hf auth login`")


if __name__ == "__main__":
    run(main, resumes=True)
