"""Load models and tokenizers by name, with errors of one line."""

from typing import Any

from open_ner.tools.errors import UserError


def load_or_explain(kind: type, name: str, **options: Any) -> Any:
    """Return `kind.from_pretrained(name)`; raise UserError if it fails."""
    try:
        return kind.from_pretrained(name, **options)
    except (OSError, ValueError) as error:
        hint = "`make setup` puts the default student in place" if name.startswith("models/") else "check the name"
        raise UserError(f"student {name!r} cannot be loaded ({str(error):.150}): {hint}") from None
