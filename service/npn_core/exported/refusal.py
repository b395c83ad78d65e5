"""How an archive is refused: one error, one way to show foreign text in it."""

from npn_core.errors import InvalidInput

HOW_TO_EXPORT = "export with torch.export.export and save with torch.export.save"


def refuse(reason: str, message: str) -> InvalidInput:
    """The error for a model archive that is not read."""
    return InvalidInput("model.uri", message, reason=reason)


def shown(text: object, limit: int = 80) -> str:
    """Foreign text for a message: one line of printable characters, quoted and cut."""
    whole = str(text)
    cut = whole[:limit] + ("..." if len(whole) > limit else "")
    return repr("".join(character if character.isprintable() else "?" for character in cut))
