"""The checkpoints of tests/golden, for tests of the command line; see its README.md."""
from harness import ROOT

GOLDEN = ROOT / "tests" / "golden"
CONFIGS = ("config.json", "config.legacy.json")  # as transformers 5 and 4 write it
FOLDERS = sorted(path.parent for path in GOLDEN.glob("*/model.safetensors"))


def copy_of(source, folder, config="config.json"):
    """The folder, with one of its configs as config.json; links, not copies."""
    folder.mkdir(parents=True)
    for path in source.iterdir():
        if path.name not in (*CONFIGS, "golden.npz"):
            (folder / path.name).symlink_to(path)
    (folder / "config.json").symlink_to(source / config)
    return folder


def spellings():
    """(folder, config) of all that there are."""
    return [(path, config) for path in FOLDERS for config in CONFIGS if (path / config).exists()]
