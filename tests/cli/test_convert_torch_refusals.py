#!/usr/bin/python3
"""scripts/convert.py on PyTorch's files that are broken or hostile: each is refused in a sentence,
soon, in little memory, and nothing of it is run.
"""
import os
import random
import resource
import struct
import sys

from harness import cpu_seconds, main
from hf_models import check_refused, convert, rng, script
from torch_models import (Pickler, make_folder, member, members_of, pickle_of, storage, view,
                          views, write_torch, zip_of)
import torch_file

SECONDS, MEGABYTES = 2, 250  # for one refusal, Python's start and numpy included; a second, 150 MB
FILE = "pytorch_model.bin"
GOOD = {"a.weight": rng.standard_normal((4, 3)).astype("<f4"),
        "b.weight": rng.standard_normal(5).astype("<f4")}


def check_hostile(folder, words):
    before = cpu_seconds()
    check_refused(folder, words)
    assert cpu_seconds() - before < SECONDS, f"{words}: {cpu_seconds() - before:.1f} s"
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # the largest child so far
    assert peak < MEGABYTES << 10, f"{words}: {peak >> 10} MB"


def check_pickles(tmp, rows):
    """rows: [(words, pickle)], each beside the storages of GOOD."""
    folder = make_folder(tmp / "m", views(GOOD))
    for words, pickle in rows:
        write_torch(folder / FILE, views(GOOD), pickle=pickle)
        check_hostile(folder, words)


# ---- the pickle

def test_programs(tmp):
    """What a pickle can call; each would make the file if it were run."""
    made = tmp / "made"
    argument = Pickler()
    argument.value((f"touch {made}",))
    touch = b"".join(argument.out[1:])
    rows = [(f"names '{module}.{name}'",
             b"\x80\x02c" + f"{module}\n{name}\n".encode() + touch + b"R.")
            for module, name in (("os", "system"), ("posix", "system"), ("builtins", "eval"),
                                 ("__builtin__", "exec"), ("subprocess", "getoutput"),
                                 ("torch", "load"), ("torch", "Float"), ("", "FloatStorage"),
                                 ("torch.torch", "FloatStorage"), ("torch._utils", "_rebuild"),
                                 ("collections", "defaultdict"), ("torch.storage", "FloatStorage"),
                                 ("torch._utils._rebuild_tensor_v2", "__globals__"))]
    inside = {"a.weight": b"cos\nsystem\n" + touch + b"R"}
    rows += [("names 'os.system'", pickle_of(inside)),
             ("names 'os.system'", pickle_of({}, state={"_metadata": inside["a.weight"]})),
             ("is damaged", b"\x80\x02(ios\nsystem\n."),
             ("is damaged", b"\x80\x02\x8c\x02os\x8c\x06system\x93."),
             ("is damaged", b"\x80\x02c" + b"x" * 100000 + b"\nx\n."),
             ("is damaged", b"\x80\x02ctorch\n\xff\xfe\n.")]
    check_pickles(tmp, rows)
    assert not made.exists()


def test_every_unknown_step(tmp):
    known = set(b"\x80(}])N\x88\x89KMJ\x8aXcqrhjt\x85\x86\x87QRbsuae.")
    assert {step[0] for step in torch_file.STEPS} | {ord(".")} == known
    start = pickle_of(views(GOOD))[:-1]
    check_pickles(tmp, [("is damaged", start + bytes([code]) + b"\0" * 8 + b".")
                        for code in b"0123FGIPSUVopdgil\x81\x82\x8b\x8c\x8f\x92\x93\x94\x95\x98"])
    rest = set(range(256)) - known
    assert all(refused(start + bytes([code]) + bytes(20) + b".") for code in rest)
    assert all(refused(bytes([2, 128]) + bytes([code]) + bytes(20) + b".") for code in range(256))


def refused(pickle):
    try:
        torch_file.read_pickle("x", pickle)
        return False
    except script.Failure:
        return True


def test_wrong_protocols(tmp):
    good = pickle_of(views(GOOD))
    check_pickles(tmp, [(f"protocol {n}", b"\x80" + bytes([n]) + good[2:])
                        for n in (0, 1, 3, 4, 5, 255)])


def test_cut_and_changed_pickles():
    """In this process: whatever the bytes, it is a table of tensors or a refusal."""
    good = pickle_of(views(GOOD), {"_metadata": {"": {"version": 1}}})
    assert not refused(good)
    assert all(refused(good[:size]) for size in range(len(good)))
    chance, accepted = random.Random(1), 0
    for _ in range(20000):
        data = bytearray(good)
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.choice((chance.randrange(256), *good))
        accepted += not refused(bytes(data))
    assert 100 < accepted < 10000, accepted


def rebuild(of, offset=0, shape=(2,), strides=(1,), *more):
    """A tensor with whatever parts."""
    p = Pickler()
    p.look_up("torch._utils", "_rebuild_tensor_v2")
    p.write(b"(")
    p.storage(of) if hasattr(of, "key") else p.value(of)
    for part in (offset, shape, strides, False):
        p.value(part)
    p.ordered()
    for part in more:
        p.value(part)
    p.write(b"tR")
    return b"".join(p.out[1:])


def test_wrong_parts_of_tensors(tmp):
    of = storage(0, "F32", GOOD["a.weight"])
    wrong = [(None, 0, (2,), (1,)), ("0", 0, (2,), (1,)), (of, 0, [2], (1,)), (of, 0, 2, 1),
             (of, 0, (2,), None), (of, 0, (2,), (1,), {"neg": True}), (of._replace(count=None),),
             (of._replace(count=-1),), (of._replace(count=1 << 63),), (of._replace(count=True),)]
    rows = [("is damaged", pickle_of({"a.weight": rebuild(*parts)})) for parts in wrong]
    wrong = [(of, -1), (of, 0, (2,), (-1,)), (of, 0, (-2,), (1,)), (of, 0, (2, 2), (1,)),
             (of, None), (of, "0"), (of, True), (of, 0, (True,), (1,)), (of, 0, ("2",), (1,)),
             (of, 0, ((2,),), (1,)), (of, 0, (1,) * 9, (1,) * 9), (of, 1 << 70),
             (of, 0, (1 << 63,))]
    rows += [("sizes", pickle_of({"a.weight": rebuild(*parts)})) for parts in wrong]
    beyond = [(of, 11), (of, 0, (13,)), (of, 0, (2,), (12,)), (of, 0, (4, 4), (4, 1)),
              (of, 0, (1 << 62, 1 << 62), (0, 1)), (of, 1 << 62), (of, 13, (0,)),
              (of, 0, (2,), (1 << 62,)), (of, 1, (4, 3), (3, 1)), (of, 1, (3, 4), (1, 3))]
    rows += [("reaches beyond its storage", pickle_of({"a.weight": rebuild(*parts)}))
             for parts in beyond]
    odd = [((2,), (2,)), ((2,), (0,)), ((1 << 40,), (0,)), ((3, 3), (0, 1)), ((2, 2), (4, 1)),
           ((2, 3), (1, 4)), ((2, 2, 2), (1, 2, 4))]
    rows += [("has the strides", pickle_of({"a.weight": rebuild(of, 0, shape, strides)}))
             for shape, strides in odd]
    rows += [(f"48 bytes where the pickle says {4 * count}", pickle_of(
        {"a.weight": rebuild(of._replace(count=count))})) for count in (0, 2, 11, 13, 1 << 40)]
    rows.append(("data/9' is missing", pickle_of({"a.weight": rebuild(of._replace(key="9"))})))
    rows.append(("data/../../x' is missing",
                 pickle_of({"a.weight": rebuild(of._replace(key="../../x"))})))
    check_pickles(tmp, rows)


def test_other_things_than_tables(tmp):
    tensor, p = rebuild(storage(0, "F32", GOOD["a.weight"])), b"\x80\x02"
    rows = [("no table of tensors", p + thing + b".") for thing in (
        b"}", b"]", b")", b"N", b"K\1", tensor, b"X\1\0\0\0a", b"ctorch\nFloatStorage\n",
        b"]" + tensor + b"a")]
    rows += [("is damaged", p + thing + b".") for thing in (
        b"", b"}}", b"(}", b"}(", b"}h\0", b"}R", b")R", b"}Q", b"}K\1K\2", b"}K\1s", b"}(K\1u",
        b"]K\1K\2s", b"})K\1s", b"}}K\1s", b"}K\1a", b"}(K\1e", b"}K\1b", b"K\1}b", b"\x86", b"t",
        b"X\xff\xff\xff\xff", b"\x8a\xff", b"X\1\0\0\0\xff", b"ccollections\nOrderedDict\n}R",
        b"ccollections\nOrderedDict\n(K\1tR", b"ctorch\nFloatStorage\n)R", b"(K\1K\2K\3K\4K\5tQ",
        b"ctorch._utils\n_rebuild_parameter\n(}K\1K\2tR", b"X\0\0\0\x80x")]
    rows += [("its entry 'model' is not a tensor", pickle_of({"model": {"a": tensor}})),
             ("its entry 'epoch' is not a tensor", pickle_of({"a": tensor, "epoch": 3})),
             ("its entry 'x' is not a tensor", pickle_of({"x": None}))]
    rows += [("a name that no weight has", pickle_of({name: tensor})) for name in (
        "../a", "a b", "", "a\n", "\u00e4", "x" * 1001)]
    check_pickles(tmp, rows)
    folder = make_folder(tmp / "n", {7: view(storage(0, "F32", GOOD["b.weight"]), (5,))})
    assert "7" in convert(folder)[0]


def test_deep_and_long_pickles(tmp):
    p, n = b"\x80\x02", 10_000
    rows = [("deeper", p + step * n + end + b".") for step, end in (
        (b"]", b"a" * (n - 1)), (b"(", b"t" * n), (b"}K\1", b"s" * n), (b"(}", b"e" * n))]
    rows += [("no table", p + b")" + b"\x85" * n + b"."),
             ("deeper", p + b"N" * (8 << 20) + b"."), ("deeper", p + b"(" * (8 << 20) + b"."),
             ("steps", p + b")" + b"\x85" * (8 << 20) + b"."),
             ("steps", p + b"}" + b"r\xff\xff\xff\x7f" * (2 << 20) + b"."),
             ("steps", p + b"]" + b"]a" * (1 << 20) + b"."),
             ("bytes, more than any", p + b"X" + struct.pack("<I", 33 << 20) + b"x" * (33 << 20))]
    rows.append(("deeper", pickle_of({"a.weight": b"(" + b"N" * n + b"t"})))
    check_pickles(tmp, rows)


# ---- the archive

def test_not_archives(tmp):
    folder = make_folder(tmp / "m", views(GOOD))
    old = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
    rows = [("before 1.6", old), ("git lfs pull", b"version https://git-lfs.github.com/spec/v1\n"),
            ("not a file of torch.save", b""), ("not a file of torch.save", b"PK"),
            ("not a file of torch.save", b"GGUF" + bytes(100)), ("is damaged", b"PK\3\4"),
            ("without a data.pkl", zip_of([member("archive/code/model.py", b"")])),
            ("without a data.pkl", zip_of([member("data.pkl", b"")])),
            ("without a data.pkl", zip_of([member("a/b/data.pkl", b"")])),
            ("is damaged", zip_of([member("a/data.pkl", b"")])),
            ("big-endian", zip_of(members_of(views(GOOD), order=b"big")))]
    for words, data in rows:
        (folder / FILE).write_bytes(data)
        check_hostile(folder, words)


def test_cut_archives(tmp):
    folder = make_folder(tmp / "m", views(GOOD))
    whole = (folder / FILE).read_bytes()
    for size in range(4, len(whole), 97):
        (folder / FILE).write_bytes(whole[:size])
        check_hostile(folder, "is damaged or cut short")
    (folder / FILE).write_bytes(whole[:200] + whole[300:])
    check_hostile(folder, FILE)


def test_hostile_members(tmp):
    folder, good = make_folder(tmp / "m", views(GOOD)), members_of(views(GOOD))
    data = next(i for i, m in enumerate(good) if m.name == "archive/data/0")

    def changed(i, **changes):
        return good[:i] + [good[i]._replace(**changes)] + good[i + 1:]

    rows = [("compressed or encrypted", changed(i, method=method)) for i in (0, data)
            for method in (8, 12, 14, 99)]
    rows += [("compressed or encrypted", changed(data, flags=flags)) for flags in (1, 0x809)]
    rows += [("where torch writes none", good + [member(name, b"x")]) for name in (
        "../x", "archive/../../x", "/etc/x", "x", "other/data/0", "archive/data/0",
        "archive2/data.pkl", "archive/..")]
    rows.append(("where torch writes none", members_of(views(GOOD), root="..")))
    rows += [("data/0' is missing", changed(data, name="archive/data/7")),
             ("its storage has 44 bytes", changed(data, data=bytes(44))),
             ("its storage has 0 bytes", changed(data, data=b""))]
    lies = "does not lie where the directory says"
    rows += [(lies, changed(data, **lie)) for lie in (
        {"size": 1 << 31}, {"packed_size": 12}, {"offset": 1}, {"offset": 1 << 31},
        {"size": 0xFFFFFFF0, "packed_size": 48})]
    rows += [("where the pickle says 48", changed(data, size=size)) for size in (44, 52, 12)]
    for words, members in rows:
        (folder / FILE).write_bytes(zip_of(members))
        check_hostile(folder, words)
    for zip64 in (False, True):
        (folder / FILE).write_bytes(zip_of(changed(data, size=1 << 30, packed_size=1 << 30), zip64))
        check_hostile(folder, lies)
    huge = changed(data, offset=1 << 62)
    (folder / FILE).write_bytes(zip_of(huge, zip64=True))
    check_hostile(folder, lies)


def test_large_directories(tmp):
    folder = make_folder(tmp / "m", views(GOOD))
    many = members_of(views(GOOD)) + [member(f"archive/{i}", b"", flags=0) for i in range(100_000)]
    (folder / FILE).write_bytes(zip_of(many, zip64=True))
    check_hostile(folder, "is damaged")
    (folder / FILE).write_bytes(zip_of(many[:30_000]))
    convert(folder)
    with open(folder / FILE, "wb") as file:  # of 40 GB, all of which is a hole
        file.write(b"PK\3\4")
        end = 40 << 30
        file.seek(end)
        file.write(struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 20, 45, 0, 0, 1, 1, end - 100, 100))
        file.write(struct.pack("<4sIQI", b"PK\6\7", 0, end, 1))
        file.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, 0xFFFFFFFF, 0xFFFFFFFF, 0))
    check_hostile(folder, "is damaged")


def test_one_storage_for_all(tmp):
    """Small files that would become large ones."""
    of = storage(0, "F32", bytes(4 << 20))
    table = {f"x{i}": view(of, (1024, 1024)) for i in range(3)}
    check_hostile(make_folder(tmp / "m", table), "more than twice the file")
    table.popitem()
    assert len(convert(make_folder(tmp / "n", table))[0]) == 4


def test_changed_archives(tmp):
    """In this process: whatever the bytes, they are tensors within the file or a refusal."""
    path = tmp / FILE
    whole, chance, accepted = zip_of(members_of(views(GOOD))), random.Random(1), 0
    places = [i for i in range(len(whole)) if whole[i:i + 8] != bytes(8)]
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            data[chance.choice(places)] = chance.choice((chance.randrange(256), 0, 255, *whole))
        path.write_bytes(data)
        try:
            for tensor in torch_file.read_torch(path):
                size = sum(map(len, torch_file.read_chunks(tensor)))
                assert size == tensor.size <= len(whole), tensor
            accepted += 1
        except script.Failure as e:
            assert str(e).count("\n") == 0 and len(str(e)) < 500, e
    assert 100 < accepted < 2900, accepted


# ---- the folder

def test_wrong_index(tmp):
    folder = make_folder(tmp / "m", views(GOOD))
    (folder / FILE).rename(folder / "one.bin")
    index = folder / "pytorch_model.bin.index.json"
    rows = [("not the name of a bin file", '"../m/one.bin"'),
            ("not the name of a bin file", '"one.safetensors"'),
            ("which is not in the folder", '"two.bin"')]
    for words, name in rows:
        index.write_text('{"weight_map": {"a.weight": %s}}' % name)
        check_hostile(folder, words)
    index.write_text('{"weight_map": {"a.weight": "one.bin", "c.weight": "one.bin"}}')
    check_hostile(folder, "does not hold it")
    index.write_text('{"weight_map": {"a.weight": "one.bin", "b.weight": "one.bin"}}')
    convert(folder)


def test_not_regular_files(tmp):
    folder = make_folder(tmp / "m", views(GOOD))
    (folder / FILE).unlink()
    os.mkfifo(folder / FILE)
    check_hostile(folder, "is not a regular file")
    check_hostile(folder / FILE, "is a PyTorch file")
    for name in ("given.bin", "given.pth"):
        write_torch(tmp / name, views(GOOD))
        check_hostile(tmp / name, "give the folder it lies in")


if __name__ == "__main__":
    sys.exit(main(globals()))
