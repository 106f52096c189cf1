#!/usr/bin/python3
"""nibble tokenize and detokenize, BOS and special tokens, tokenizers that do not fit the model."""
import json
import shutil
import sys

from harness import FAIRYTALE, ROOT, TOKENIZER, main
from models import BYTE_0, EOS, PIECES, Tiny, byte_ids, chain

BOS = 1
CASES = ROOT / "tests" / "text" / "cases.jsonl"


def folder_with(tmp, name="bpe_bytes", **config):
    """A folder that holds nothing but a tokenizer, and perhaps its config."""
    folder = tmp / name
    folder.mkdir(exist_ok=True)
    shutil.copy(TOKENIZER.with_name(name + ".model"), folder / "tokenizer.model")
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def ids_of(nibble, model, text, *options):
    return [int(word) for word in nibble("tokenize", model, "-p", text, *options).split()]


def test_tokenize_prints_one_line(tmp, nibble):
    folder = folder_with(tmp)
    out = nibble("tokenize", folder, "-p", "the fox\nran")
    assert out.count(b"\n") == 1 and out.endswith(b"\n") and out[:2] == b"1 ", out
    assert nibble("tokenize", folder, "-p", "", "--no-bos") == b"\n"
    assert nibble("tokenize", folder, "-p", "") == b"1\n"


def test_known_cases(tmp, nibble):
    """A few of what SentencePiece itself made of texts; tests/text/ has them all."""
    folder, tried = folder_with(tmp), {"encode": 0, "special": 0, "decode": 0}
    for line in CASES.read_text().splitlines()[::2]:
        case = json.loads(line)
        kind = next(key for key in tried if key in case)
        if case[kind] != "bpe_bytes" or tried[kind] == 12 or "hex" in case and kind == "decode":
            continue
        text = bytes.fromhex(case["hex"]) if "hex" in case else case["text"].encode()
        if kind == "decode" and min(case["ids"], default=0) >= BYTE_0:  # others show special tokens
            assert nibble("detokenize", folder, *case["ids"]) == text, case
        elif kind != "decode":
            special = ["--special"] if kind == "special" else []
            got = nibble("tokenize", folder, "--no-bos", *special, stdin=text)
            assert list(map(int, got.split())) == case["ids"], (case, got)
        tried[kind] += 1
    assert min(tried.values()) > 3, tried


def test_only_a_tokenizer_is_needed(tmp, nibble):
    folder = folder_with(tmp)
    ids = ids_of(nibble, folder, "the quick fox")
    assert nibble("detokenize", folder, *ids) == b"<s> the quick fox"
    assert ids == ids_of(nibble, Tiny().save(tmp / "m.npz"), "the quick fox")
    nibble.refuses("generate", folder, "-p", "x", says="weights.npz")
    (tmp / "empty").mkdir()
    nibble.refuses("tokenize", tmp / "empty", "-p", "x", says="empty")
    nibble.refuses("tokenize", TOKENIZER, "-p", "x", says="npz")
    nibble.refuses("tokenize", Tiny().save(tmp / "n.npz", tokenizer=None), "-p", "x",
                   says="no tokenizer.model")
    (folder / "tokenizer.model").write_bytes(b"nonsense")
    nibble.refuses("tokenize", folder, "-p", "x", says="tokenizer.model")


def test_text_is_taken_as_it_is(tmp, nibble):
    folder = folder_with(tmp)
    for text in (b"a", b"a\n", b"a\n\n", b"\n", b"a\0b", b"\0", b"  a  ", b"\r\n\t",
                 "\u00e9\u4e2d".encode()):
        (tmp / "p").write_bytes(text)
        out = nibble("tokenize", folder, "-f", tmp / "p")
        assert nibble("tokenize", folder, stdin=text) == out
        assert nibble("tokenize", folder, "-f", "-", stdin=text) == out
        assert nibble("detokenize", folder, *out.split()[1:]) == text, (text, out)
    assert nibble("tokenize", folder, stdin=b"a\n") == nibble("tokenize", folder, "-p", "a\n")
    invalid = nibble("tokenize", folder, "--no-bos", stdin=b"\xff").split()
    assert nibble("detokenize", folder, *invalid) == "\ufffd".encode()


def test_long_texts(tmp, nibble):
    folder = folder_with(tmp)
    for text in (b"a" * 400000, b"the fox " * 50000, b"\0" * 100000):
        ids = nibble("tokenize", folder, "--no-bos", stdin=text).split()
        assert len(ids) >= len(text) // 20, len(ids)


# ---- detokenize

def test_detokenize_adds_nothing(tmp, nibble):
    folder = folder_with(tmp)
    the, fox = ids_of(nibble, folder, "the", "--no-bos"), ids_of(nibble, folder, " fox", "--no-bos")
    assert nibble("detokenize", folder, *the) == b"the"
    assert nibble("detokenize", folder, *fox) == b" fox"
    assert nibble("detokenize", folder, BOS, *the, EOS) == b"<s> the</s>"
    assert nibble("detokenize", folder, 0) == b"<unk>"
    assert nibble("detokenize", folder, *byte_ids(b"\xff\0\n")) == b"\xff\0\n"
    assert nibble("detokenize", folder, BYTE_0 + 0xe9) == b"\xe9"


def test_wrong_ids(tmp, nibble):
    folder = folder_with(tmp)
    nibble.refuses("detokenize", folder, PIECES, says=["400", "400 pieces"], code=2)
    for bad in ("x", "1.5", "", "99999999999", "1e20", "1 2"):
        nibble.refuses("detokenize", folder, "1", bad, code=2)
    nibble.refuses("detokenize", folder, "--", "-1", says="-1", code=2)
    assert nibble("detokenize", folder) == b"", "of no ids"


# ---- BOS and special tokens

def test_bos_is_never_there_twice(tmp, nibble):
    for folder in (folder_with(tmp), FAIRYTALE):
        hello = ids_of(nibble, folder, "hello", "--no-bos")
        assert ids_of(nibble, folder, "hello") == [BOS, *hello]
        assert ids_of(nibble, folder, "hello", "--bos") == [BOS, *hello]
        assert ids_of(nibble, folder, "<s>hello", "--special") == [BOS, *hello]
        assert ids_of(nibble, folder, "<s>hello", "--special", "--bos") == [BOS, *hello]
        assert ids_of(nibble, folder, "<s>hello", "--special", "--no-bos") == [BOS, *hello]
        assert ids_of(nibble, folder, "<s>", "--special") == [BOS]
    words = ("generate", FAIRYTALE, "--temp", "0", "-n", "5")
    want = nibble(*words, "-p", "hello")
    assert nibble(*words, "--special", "-p", "<s>hello") == want
    assert nibble.json(*words, "--special", "-p", "<s>hello")["prompt_tokens"] == 1 + len(hello)
    assert nibble.json(*words, "-p", "hello", "--no-bos")["prompt_tokens"] == len(hello)


def test_special_tokens_in_a_text_are_text(tmp, nibble):
    for model in (folder_with(tmp), FAIRYTALE):
        for text in ("<s>", "</s>", "a</s>b", "<unk>", "<s><s>"):
            ids = ids_of(nibble, model, text)
            assert ids[0] == BOS and not {0, BOS, EOS} & set(ids[1:]), (text, ids)
            assert nibble("detokenize", model, *ids[1:]).decode() == text
            special = ids_of(nibble, model, text, "--special")
            assert {0, BOS, EOS} & set(special[1:] or [BOS]), (text, special)
    got = nibble.json("generate", FAIRYTALE, "-p", "a</s>b", "-n", "0")["prompt_tokens"]
    assert got == len(ids_of(nibble, FAIRYTALE, "a</s>b"))


def test_the_config_may_want_no_bos(tmp, nibble):
    folder = folder_with(tmp, add_bos_token=False)
    hello = ids_of(nibble, folder, "hello", "--no-bos")
    assert ids_of(nibble, folder, "hello") == hello
    assert ids_of(nibble, folder, "hello", "--bos") == [BOS, *hello]
    assert ids_of(nibble, folder_with(tmp, add_bos_token=None), "hello") == [BOS, *hello]
    folder_with(tmp, add_bos_token="no")
    nibble.refuses("tokenize", folder, "-p", "x", says="add_bos_token")


def test_other_tokenizers(tmp, nibble):
    for name in ("bpe_symbols", "unigram_rules", "char_spaces"):
        folder = folder_with(tmp, name)
        ids = ids_of(nibble, folder, "the cat")
        assert ids[0] == BOS and nibble("detokenize", folder, *ids[1:]) == b"the cat", (name, ids)


# ---- pieces and rows

def test_more_pieces_than_rows(tmp, nibble):
    model = Tiny(vocab=PIECES - 1).save(tmp / "m.npz")
    for words in (("generate", model, "-p", "x"), ("info", model),
                  ("logits", model, "--ids", "1", "-o", tmp / "x")):
        nibble.refuses(*words, says=["400 pieces", "399 rows"])
    assert ids_of(nibble, model, "x")[0] == BOS, "the tokenizer by itself is sound"


def test_rows_without_a_piece_are_never_sampled(tmp, nibble):
    tiny = Tiny(vocab=PIECES + 24)
    tiny.weights["output"][PIECES:] *= 100  # the largest logits by far, of either sign
    model = tiny.save(tmp / "m.npz")
    bare = tiny.save(tmp / "bare.npz", tokenizer=None)
    words = ("--ids", "1 5 9", "-n", "60", "--ignore-eos")
    for options in (("--temp", "0"), ("--temp", "0.8", "-s", "1"),
                    ("--temp", "100", "--top-k", "0", "--min-p", "0", "--top-p", "1")):
        ids = nibble.json("generate", model, *words, *options)["ids"]
        assert max(ids) < PIECES, (options, ids)
        ids = nibble.json("generate", bare, *words, *options)["ids"]
        assert max(ids) >= PIECES, "without a tokenizer every row is a token"
    nibble.refuses("generate", model, *words, "--logit-bias", f"{PIECES}=1", says="400", code=2)


def test_ends_outside_the_vocabulary(tmp, nibble):
    tiny = Tiny()
    for change in ({"eos_token_id": PIECES}, {"eos_token_id": [2, -1]}, {"eos_token_id": "2"},
                   {"bos_token_id": PIECES}, {"bos_token_id": 1.5}, {"eos_token_id": [[2]]}):
        tiny.save(tmp / "m.npz", config={**tiny.config, **change})
        nibble.refuses("generate", tmp / "m.npz", "-p", "x", says=["token", str(tmp / "m.npz")])
    x, = byte_ids(b"x")
    model = chain(tmp / "n.npz", [x, 300], bos_token_id=None, eos_token_id=None)
    assert nibble.json("generate", model, "--temp", "0", "--ids", x)["ids"] == [300, EOS]


if __name__ == "__main__":
    sys.exit(main(globals()))
