"""Names of peers with the versions that are installed."""

import importlib.metadata


def versions(*packages):
    return " + ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
