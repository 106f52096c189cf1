#!/usr/bin/python3
"""nibble tokenize and detokenize, BOS and special tokens, tokenizers that do not fit the model."""
import base64
import json
import shutil
import subprocess
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
                   says=["no tokenizer.model", "no tokenizer.json"])
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


# ---- tokenizer.json and tiktoken; tests/text/ has what each part of such a file does

def letter(byte):
    """The character that stands for a byte in GPT-2's alphabet."""
    printed = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    return chr(byte if byte in printed else
               256 + sorted(set(range(256)) - set(printed)).index(byte))


def bpe_json(**parts):
    """Bytes are their ids; hello is 259, with a space before it 260, <s> 262, a tool call 263."""
    vocab = {letter(b): b for b in range(256)}
    for piece in ("he", "ll", "hell", "hello", "\u0120hello", "\u0120\u0120"):
        vocab[piece] = len(vocab)
    pairs = ["h e", "l l", "he ll", "hell o", "\u0120 hello", "\u0120 \u0120"]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    template = {"type": "TemplateProcessing", "single": [
        {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [262], "tokens": ["<s>"]}}}
    return {"version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [{"id": 262, "content": "<s>", "special": True, "normalized": False},
                             {"id": 263, "content": "<call>", "special": False}],
            "normalizer": {"type": "NFC"}, "pre_tokenizer": byte_level,
            "post_processor": template, "decoder": byte_level,
            "model": {"type": "BPE", "vocab": vocab, "merges": pairs}, **parts}


def json_folder(tmp, config=None, **parts):
    folder = tmp / "json"
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(bpe_json(**parts)))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_tokenizer_json(tmp, nibble):
    folder = json_folder(tmp)
    assert ids_of(nibble, folder, "hello hello") == [262, 259, 260]
    assert ids_of(nibble, folder, "hello hello", "--no-bos") == [259, 260]
    assert ids_of(nibble, folder, "<s>hello", "--special") == [262, 259]
    assert ids_of(nibble, folder, "<s>", "--no-bos") == [60, 115, 62], "text stays text"
    assert ids_of(nibble, folder, "<call>", "--no-bos") == [263], "that is not special"
    assert ids_of(nibble, folder, "e\u0301", "--no-bos") == [0xc3, 0xa9], "NFC"
    assert nibble("detokenize", folder, 262, 259, 260, 0xc3) == b"<s>hello hello\xc3"
    nibble.refuses("detokenize", folder, 264, says=["264", "264 pieces"], code=2)
    whole = {**bpe_json(), "normalizer": {"type": "Precompiled"}}
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    nibble.refuses("tokenize", folder, "-p", "x", says=["json/tokenizer.json", "Precompiled"])
    (folder / "tokenizer.json").write_text("{}")
    nibble.refuses("tokenize", folder, "-p", "x", says="json/tokenizer.json")


def test_bos_of_a_tokenizer_json(tmp, nibble):
    folder = json_folder(tmp, {"add_bos_token": False})
    assert ids_of(nibble, folder, "hello") == [259]
    assert ids_of(nibble, folder, "hello", "--bos") == [262, 259]
    folder = json_folder(tmp, {"bos_token": "<call>"}, post_processor=None)
    assert ids_of(nibble, folder, "hello") == [259], "no template, no BOS"
    assert ids_of(nibble, folder, "hello", "--bos") == [263, 259]
    folder = json_folder(tmp, {"bos_token": {"content": "<s>"}, "add_bos_token": True},
                         post_processor=None)
    assert ids_of(nibble, folder, "hello") == [262, 259]
    two = bpe_json()["post_processor"]
    two["special_tokens"]["<s>"]["ids"] = [263, 262]
    folder = json_folder(tmp, {}, post_processor=two)
    assert ids_of(nibble, folder, "hello") == [263, 262, 259]
    assert ids_of(nibble, folder, "<call><s>hello", "--special") == [263, 262, 259]
    assert ids_of(nibble, folder, "<s>hello", "--special") == [263, 262, 262, 259]


def test_both_files(tmp, nibble):
    """tokenizer.json is used: it has the added tokens too."""
    folder = json_folder(tmp)
    shutil.copy(TOKENIZER, folder / "tokenizer.model")
    assert ids_of(nibble, folder, "hello") == [262, 259]
    (folder / "tokenizer.model").write_bytes(b"nonsense")
    assert ids_of(nibble, folder, "hello") == [262, 259]


def test_a_tokenizer_json_that_is_not_done(tmp, nibble):
    """A tokenizer.model beside it is used, with the tokens added in the other."""
    folder = json_folder(tmp, normalizer={"type": "Precompiled"},
                         added_tokens=[{"id": PIECES, "content": "<call>", "special": False}])
    nibble.refuses("tokenize", folder, "-p", "x", says=["json/tokenizer.json", "Precompiled"])
    shutil.copy(TOKENIZER, folder / "tokenizer.model")
    plain = ids_of(nibble, folder_with(tmp), "the fox")
    assert ids_of(nibble, folder, "the fox") == plain
    assert ids_of(nibble, folder, "<call>the fox", "--no-bos") == [PIECES, *plain[1:]]
    (folder / "tokenizer.json").write_text("{}")
    nibble.refuses("tokenize", folder, "-p", "x", says="json/tokenizer.json")


def added_folder(tmp, name, ids=None, decoder=None):
    folder = folder_with(tmp)
    other = folder.with_name(name)
    shutil.copytree(folder, other)
    if ids is not None:
        (other / "added_tokens.json").write_text(json.dumps(ids))
    if decoder is not None:
        config = {"added_tokens_decoder": decoder}
        (other / "tokenizer_config.json").write_text(json.dumps(config))
    return other


def test_tokens_added_to_a_tokenizer_model(tmp, nibble):
    fox = ids_of(nibble, folder_with(tmp), "the fox", "--no-bos")
    ids = added_folder(tmp, "ids", {"<|turn|>": PIECES + 2, "<|end|>": PIECES})
    assert ids_of(nibble, ids, "<|turn|>the fox<|end|>", "--no-bos") == [402, *fox, 400]
    assert nibble("detokenize", ids, 402, *fox, 400, 401) == b"<|turn|> the fox<|end|>"
    nibble.refuses("detokenize", ids, 403, says="403 pieces", code=2)
    token = {"content": "<|turn|>", "special": True, "lstrip": False, "rstrip": False,
             "single_word": False, "normalized": False}
    decoder = {"0": {**token, "content": "<unk>"}, "1": {**token, "content": "<s>"},
               "2": {**token, "content": "</s>"}, "400": {**token, "rstrip": True},
               "401": {**token, "content": "<call>", "special": False, "lstrip": True}}
    both = added_folder(tmp, "both", {"<call>": 401, "<|turn|>": 7, "<x>": 402}, decoder)
    assert ids_of(nibble, both, "<|turn|>  the fox <call>", "--special", "--no-bos") == [
        400, *fox, 401]
    assert ids_of(nibble, both, "</s><call><x>", "--special", "--no-bos") == [2, 401, 402]
    assert 400 not in ids_of(nibble, both, "<|turn|>") and 2 not in ids_of(nibble, both, "</s>")
    assert nibble("detokenize", both, 400, 401, 1) == b"<|turn|><call><s>"
    again = added_folder(tmp, "again", {"</s>": 400})
    nibble.refuses("tokenize", again, "-p", "x", says=["</s>", "another id"])
    for number, wrong in enumerate(({"<x>": -1}, {"<x>": "7"}, {"<x>": 1e9}, {"<x>": 0.5})):
        bad = added_folder(tmp, f"bad{number}", wrong)
        nibble.refuses("tokenize", bad, "-p", "x", says=["added_tokens.json", "whole number"])


def test_added_tokens_are_carried_over(tmp, nibble):
    folder = Tiny(vocab=PIECES + 1).save_folder(tmp / "model")
    (folder / "added_tokens.json").write_text(json.dumps({"<a>": PIECES}))
    nibble("quantize", folder, tmp / "q.npz", "--quiet")
    assert ids_of(nibble, tmp / "q.npz", "<a>", "--no-bos") == [PIECES]


def test_added_tokens_that_the_model_has_no_rows_for(tmp, nibble):
    folder = Tiny(vocab=PIECES + 1).save_folder(tmp / "model")
    (folder / "added_tokens.json").write_text(json.dumps({"<a>": PIECES, "<pad>": PIECES + 1}))
    got = nibble.json("generate", folder, "-p", "<a>", "-n", "1", "--no-bos")
    assert got["prompt_tokens"] == 1
    assert nibble.json("generate", folder, "-p", "<pad>", "-n", "1", "--no-bos")[
        "prompt_tokens"] > 1


def test_a_model_with_a_tokenizer_json(tmp, nibble):
    folder = Tiny(vocab=264).save_folder(tmp / "model", tokenizer=None)
    shutil.copy(json_folder(tmp) / "tokenizer.json", folder / "tokenizer.json")
    got = nibble.json("generate", folder, "--temp", "0", "-p", "hello hello", "-n", "8",
                      "--ignore-eos")
    assert got["prompt_tokens"] == 3 and len(got["ids"]) == 8, got
    text = nibble("detokenize", folder, *[i for i in got["ids"] if i != 262])
    assert got["text"] == text.decode("utf-8", "replace"), (got, text)


def test_tiktoken(tmp, nibble):
    folder = tmp / "ranks"
    folder.mkdir()
    pieces = [bytes([b]) for b in range(256)] + [b"he", b"ll", b"hell", b"hello", b" hello"]
    lines = [base64.b64encode(p) + b" %d\n" % i for i, p in enumerate(pieces)]
    (folder / "tokenizer.model").write_bytes(b"".join(lines))
    assert ids_of(nibble, folder, "hello hello") == [261, 259, 260]
    assert ids_of(nibble, folder, "<|eot_id|>", "--special", "--no-bos") == [261 + 9]
    assert nibble("detokenize", folder, 261, 260, 0xff) == b"<|begin_of_text|> hello\xff"
    (folder / "tokenizer.model").write_bytes(b"".join(lines[:-1]) + b"aGVsbG8 261\n")
    nibble.refuses("tokenize", folder, "-p", "x", says=["tokenizer.model", "line 261"])


def test_long_texts_of_a_tokenizer_json(tmp, nibble):
    """1 MB takes less than 2 s, whatever it holds."""
    folder = json_folder(tmp)
    vocab = bpe_json()["model"]["vocab"] | {"aa": 264, "a" * 4: 265, "a" * 8: 266, "th": 267}
    model = {"type": "BPE", "vocab": vocab, "merges": [
        *bpe_json()["model"]["merges"], "a a", "aa aa", "aaaa aaaa", "t h"]}
    words = {"a": 125000, " ": 500000, "the hello, 123 ": None, "\u4eca": None, "\n": 1000000}
    for normalizer in ({"type": "NFC"}, None):
        json_folder(tmp, model=model, normalizer=normalizer)
        for unit, count in words.items():
            text = (unit.encode() * 1000000)[:1000000 // len(unit.encode()) * len(unit.encode())]
            result = nibble.run("tokenize", folder, "--no-bos", stdin=text)
            got = len(result.out.split())
            assert result.code == 0 and (count or got) == got > 99999, (unit, got, result)
            assert result.cpu_s < nibble.refusal_s, f"{unit!r} took {result.cpu_s:.1f} s"


def test_reference_tokenizers(tmp, nibble, reference):
    """Every case that Hugging Face's tokenizers recorded."""
    result = subprocess.run([sys.executable, reference / "tools" / "check_tokenizer.py", nibble,
                             reference / "golden"], capture_output=True, text=True)
    assert result.returncode == 0 and " 0 failed" in result.stdout, result.stdout[-3000:]


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
                    ("--temp", "100", "--top-k", "0", "--min-p", "0", "--top-p", "1", "-s", "1")):
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
