"""What the tests of nibble chat share: a model that always answers the same."""
from models import BYTE_0, chain

ANSWER = "fish"
IDS = [344, 333, 335, 332]  # the pieces of tests/text/bpe_bytes.model that it is cut into
LINE_FEED = BYTE_0 + ord("\n")


def talker(path, endless=False, **config):
    """A model that says ANSWER behind a line feed, with which the template zephyr opens an answer;
    endless: and a line feed, and so on."""
    ids = [LINE_FEED, *IDS, *([LINE_FEED] if endless else [])]
    return chain(path, ids, **{"context": 1 << 18 if endless else 256, **config})


def said(conversation):
    """A saved conversation as (role, content)."""
    return [(m["role"], m["content"]) for m in conversation["messages"]]
