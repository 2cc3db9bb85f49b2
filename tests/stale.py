"""What an edit makes stale."""

from genpipe.dependencies import code_of


def changed_since(root, before):
    """The stages whose code is not what it was, as command@item."""
    now = code_of(root)
    return {
        f"{stage}@{name}"
        for stage, items in now.items()
        for name in items
        if items[name] != before[stage][name]
    }
