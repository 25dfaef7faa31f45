"""The config and the revision of a student: of a whole model, or of an adapter and its base model."""

from pathlib import Path

from huggingface_hub import hf_hub_download
from transformers import AutoConfig, PreTrainedConfig
from transformers.utils import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from open_ner.tools.files import read_json
from open_ner.tools.fingerprint import hash_student

from .pretrained import load_or_explain


def find_base(name: str, revision: str = "main") -> str | None:
    """Return the base model that an adapter (folder or Hub id) names; None for a whole model."""
    try:
        adapter = find_adapter_config_file(name, revision=revision)
    except OSError:  # the folder or repository does not exist; loading it gives a better message
        return None
    if not adapter or cached_file(name, "config.json", revision=revision, _raise_exceptions_for_missing_entries=False):
        return None
    return read_json(Path(adapter)).get("base_model_name_or_path")


def load_config(name: str) -> PreTrainedConfig:
    """Return the config of a student; that of an adapter is its base model's, as in `open_ner.load`."""
    return load_or_explain(AutoConfig, find_base(name) or name)


def revision_of(name: str, revision: str = "main") -> str:
    """Return what tells the weights of a student apart from others of its name.

    Args:
        name: folder or Hub id.
        revision: branch, tag or commit of a Hub model.

    Returns:
        The commit of a Hub model (40 hex digits), or a hash of the files of a folder that its answers depend on (16).
        The hash does not cover the saved defaults of the pipeline.
    """
    if Path(name).is_dir():
        return hash_student(Path(name), with_defaults=False)
    base = find_base(name, revision)
    if not base:
        load_or_explain(AutoConfig, name, revision=revision)  # raises UserError if the Hub does not have it
    # the cache has a folder for each commit
    return Path(hf_hub_download(name, "adapter_config.json" if base else "config.json", revision=revision)).parent.name
