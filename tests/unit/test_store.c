/* store.h: single files, folders and shards as one table. */
#include "store/store.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "check.h"
#include "scratch.h"

static void check_refused(const char *path, enum status status, const char *why) {
    struct store store;
    struct error e = {0};
    bool ok = store_open(&store, path, &e);
    CHECK_MSG(!ok, "%s was opened, expected: %s", path, why);
    if (ok)
        store_close(&store);
    else
        CHECK_MSG(e.status == status && strstr(e.message, why), "%s", e.message);
    CHECK(store.arrays == NULL && store.files == NULL && store.path == NULL);
}

static bool says(struct span bytes, const char *text) {
    return bytes.data && bytes.size == strlen(text) && memcmp(bytes.data, text, bytes.size) == 0;
}

static const char *where(const struct store *store, const char *name) {
    static char out[1024];
    store_where(store, name, out, sizeof out);
    return out;
}

/* The k-th element of an array of f32, wherever its bytes lie. */
static float element(const struct array *a, size_t k) {
    float v;
    memcpy(&v, a->bytes.data + 4 * k, 4);
    return v;
}

#define COMMON                                                                                     \
    "import os\n"                                                                                  \
    "def u1(text): return np.frombuffer(text.encode(), 'u1')\n"                                    \
    "w = np.arange(12, dtype='f4').reshape(3, 4)\n"                                                \
    "def folder(name, **files):\n"                                                                 \
    "    os.mkdir(name)\n"                                                                         \
    "    for f, a in files.items(): np.savez(f'{name}/{f.replace(\"_\", \".\")}', **a)\n"

static void test_single(void) {
    struct store store;
    struct error e = {0};
    CHECK(scratch_python(
        COMMON "a = {'w': w, 'v': np.arange(3, dtype='f2'), 'a.b': np.zeros((2, 0), 'u4')}\n"
               "np.savez('one.npz', **a, **{'config.json': u1('{}'), 'tokenizer.model': u1('')})\n"
               "with zipfile.ZipFile('one.npz', 'a') as z:\n"
               "    z.writestr('params.json', '{\"dim\": 1}')\n"
               "    z.writestr('README.md', 'not an array')\n"
               "np.savez_compressed('packed.npz', **a)\n"));
    CHECK_MSG(store_open(&store, scratch_path("one.npz"), &e), "%s", e.message);
    CHECK(store.count == 3 && store.unread == NULL);
    CHECK(store.mapped_bytes == 48 + 6 && store.private_bytes == 0);
    CHECK(strcmp(store.arrays[0].name, "a.b") == 0 && strcmp(store.arrays[2].name, "w") == 0);
    const struct array *w = store_find(&store, "w");
    CHECK(w && w->dtype == DTYPE_F32 && w->dims == 2 && w->shape[0] == 3 && w->shape[1] == 4);
    CHECK(w && w->mapped && w->bytes.size == 48 && element(w, 11) == 11.0f);
    CHECK(store_find(&store, "config.json") == NULL && store_find(&store, "W") == NULL);
    CHECK(says(store_file(&store, "config.json"), "{}"));
    CHECK(says(store_file(&store, "params.json"), "{\"dim\": 1}"));
    CHECK(says(store_file(&store, "tokenizer.model"), ""));
    CHECK(store_file(&store, "tokenizer.json").data == NULL);
    CHECK(store_file(&store, "README.md").data == NULL);
    CHECK(strcmp(where(&store, "w"), scratch_path("one.npz")) == 0);
    CHECK(strcmp(where(&store, "tokenizer.json"), scratch_path("one.npz")) == 0);
    CHECK(strcmp(where(&store, "config.json"), scratch_path("one.npz (config.json)")) == 0);
    CHECK(store_require_arrays(&store, &e));
    store_close(&store);
    store_close(&store); /* all zero now */

    CHECK_MSG(store_open(&store, scratch_path("packed.npz"), &e), "%s", e.message);
    CHECK(store.mapped_bytes == 0 && store.private_bytes == 48 + 6);
    w = store_find(&store, "w");
    CHECK(w && !w->mapped && element(w, 7) == 7.0f);
    store_close(&store);
}

static void test_single_refused(void) {
    CHECK(scratch_python(
        COMMON "np.savez('shape.npz', **{'config.json': u1('{}').reshape(1, 2)})\n"
               "np.savez('type.npz', **{'config.json': np.zeros(3, 'f4')})\n"
               "np.savez('twice.npz', w=w, **{'config.json': u1('{}')})\n"
               "np.savez('object.npz', w=w, bad=np.array([None, 1], object))\n"
               "np.savez('order.npz', w=w, bad=np.asfortranarray(w))\n"
               "with zipfile.ZipFile('twice.npz', 'a') as z: z.writestr('config.json', '{}')\n"
               "with zipfile.ZipFile('foreign.npz', 'w') as z: z.writestr('data.pkl', 'x')\n"
               "with zipfile.ZipFile('fake.npz', 'w') as z: z.writestr('w.npy', 'not npy')\n"
               "open('cut.npz', 'wb').write(open('order.npz', 'rb').read()[:-30])\n"));
    check_refused(scratch_path("shape.npz"), STATUS_FORMAT, "config.json must be");
    check_refused(scratch_path("type.npz"), STATUS_FORMAT, "config.json must be");
    check_refused(scratch_path("twice.npz"), STATUS_MODEL, "holds config.json, which is in");
    check_refused(scratch_path("object.npz"), STATUS_FORMAT,
                  "object.npz: bad holds pickled objects");
    check_refused(scratch_path("order.npz"), STATUS_FORMAT, "order.npz: bad is stored in Fortran");
    check_refused(scratch_path("foreign.npz"), STATUS_MODEL, "foreign.npz holds no arrays");
    check_refused(scratch_path("fake.npz"), STATUS_FORMAT, "fake.npz: w is not in npy format");
    check_refused(scratch_path("cut.npz"), STATUS_FORMAT, "cut short");
    check_refused(scratch_path("nowhere"), STATUS_FILE, "nowhere cannot be opened: No such file");
    check_refused(scratch_text("empty.npz", ""), STATUS_FORMAT, "is empty");
    check_refused(scratch_text("text.npz", "a text of some length\n"), STATUS_FORMAT, "not a zip");
    CHECK(mkfifo(scratch_path("fifo"), 0600) == 0);
    check_refused(scratch_path("fifo"), STATUS_FILE, "not a regular file");
}

static void test_folder(void) {
    struct store store;
    struct error e = {0};
    CHECK(scratch_python(COMMON "folder('plain', weights_npz={'w': w})\n"
                                "open('plain/config.json', 'w').write('{}')\n"
                                "open('plain/tokenizer.model', 'w').write('model')\n"
                                "folder('bare', weights_npz={'w': w})\n"
                                "os.mkdir('text')\n"
                                "open('text/tokenizer.json', 'w').write('{}')\n"));
    CHECK_MSG(store_open(&store, scratch_path("plain/"), &e), "%s", e.message);
    CHECK(store.count == 1 && store_find(&store, "w") != NULL);
    CHECK(says(store_file(&store, "config.json"), "{}"));
    CHECK(says(store_file(&store, "tokenizer.model"), "model"));
    CHECK(strcmp(where(&store, "config.json"), scratch_path("plain/config.json")) == 0);
    CHECK(strcmp(where(&store, "w"), scratch_path("plain/weights.npz")) == 0);
    CHECK(strcmp(where(&store, "v"), scratch_path("plain/")) == 0);
    store_close(&store);

    CHECK_MSG(store_open(&store, scratch_path("bare"), &e) && store.count == 1, "%s", e.message);
    CHECK(store_file(&store, "config.json").data == NULL);
    store_close(&store);

    /* A tokenizer alone is enough to tokenize; weights are asked for by who needs them. */
    CHECK_MSG(store_open(&store, scratch_path("text"), &e) && store.count == 0, "%s", e.message);
    CHECK(says(store_file(&store, "tokenizer.json"), "{}") && store_find(&store, "w") == NULL);
    CHECK(!store_require_arrays(&store, &e) && strstr(e.message, "text holds no arrays"));
    store_close(&store);
}

static void test_shards(void) {
    struct store store;
    struct error e = {0};
    CHECK(scratch_python(
        COMMON "many = {f'weights_{i:02}_npz': {f'w{i}': w + i} for i in range(11)}\n"
               "folder('padded', **many)\n"
               "folder('short', **{f'weights_{i}_npz': {f'w{i}': w + i} for i in range(11)})\n"
               "many.pop('weights_09_npz'); folder('hole', **many)\n"
               "folder('first', weights_1_npz={'w': w}, weights_2_npz={'v': w})\n"
               "folder('same', weights_00_npz={'w': w}, weights_01_npz={'w': w})\n"
               "folder('both', weights_0_npz={'w': w}, weights_00_npz={'v': w})\n"
               "folder('mixed', weights_npz={'w': w}, weights_00_npz={'v': w})\n"
               "open('first/config.json', 'w').write('{}')\n"));
    for (int i = 0; i < 2; i++) {
        CHECK_MSG(store_open(&store, scratch_path(i ? "padded" : "short"), &e), "%s", e.message);
        CHECK(store.count == 11 && store.mapped_bytes == 11 * 48);
        const struct array *a = store_find(&store, "w10");
        CHECK(a && element(a, 0) == 10.0f);
        CHECK(strcmp(where(&store, "w7"),
                     scratch_path(i ? "padded/weights.07.npz" : "short/weights.7.npz")) == 0);
        store_close(&store);
    }
    check_refused(scratch_path("hole"), STATUS_MODEL, "hole lacks the shard weights.09.npz");
    check_refused(scratch_path("first"), STATUS_MODEL, "first lacks the shard weights.0.npz");
    check_refused(scratch_path("same"), STATUS_MODEL, "w is in ");
    check_refused(scratch_path("both"), STATUS_MODEL, "both weights.0.npz and weights.00.npz");
    check_refused(scratch_path("mixed"), STATUS_MODEL, "both weights.npz and weights.00.npz");
}

static void test_unread(void) {
    struct store store;
    struct error e = {0};
    CHECK(scratch_python(COMMON "folder('other', model_npz={'w': w})\n"
                                "folder('tensors', golden_npz={'w': w})\n"
                                "open('tensors/model-2.safetensors', 'w').write('x')\n"
                                "open('tensors/model-1.safetensors', 'w').write('x')\n"
                                "open('tensors/._a.safetensors', 'w').write('x')\n"
                                "os.mkdir('nothing')\n"
                                "os.mkdir('dangling')\n"
                                "os.symlink('gone', 'dangling/config.json')\n"
                                "os.mkdir('broken')\n"
                                "open('broken/weights.npz', 'w').write('PK..')\n"
                                "open('broken/config.json', 'w').write('{}')\n"));
    check_refused(scratch_path("other"), STATUS_MODEL,
                  "other holds model.npz, but no model.safetensors and no weights.npz; name the");
    check_refused(scratch_path("tensors"), STATUS_MODEL,
                  "tensors holds model-1.safetensors, but no model.safetensors and no");
    check_refused(scratch_path("nothing"), STATUS_MODEL, "nothing holds no arrays");
    check_refused(scratch_path("dangling"), STATUS_FILE, "dangling/config.json cannot be opened");
    check_refused(scratch_path("broken"), STATUS_FORMAT, "broken/weights.npz is not a zip");

    scratch_text("tensors/config.json", "{}");
    CHECK(store_open(&store, scratch_path("tensors"), &e) && store.count == 0);
    CHECK(store.unread && strcmp(store.unread, "model-1.safetensors") == 0);
    CHECK(!store_require_arrays(&store, &e) && strstr(e.message, "name the file itself"));
    store_close(&store);
}

/* --- safetensors ------------------------------------------------------------------------------ */

/* st(path, a='xy') writes a file with a tensor a of two bytes; index(folder, a='f') an index. */
#define SAFETENSORS                                                                                \
    COMMON                                                                                         \
    "import json\n"                                                                                \
    "def st(path, **tensors):\n"                                                                   \
    "    head, data = {}, b''\n"                                                                   \
    "    os.makedirs(os.path.dirname(path), exist_ok=True)\n"                                      \
    "    for name, text in tensors.items():\n"                                                     \
    "        at, data = len(data), data + text.encode()\n"                                         \
    "        head[name] = dict(dtype='U8', shape=[len(data) - at],\n"                              \
    "                          data_offsets=[at, len(data)])\n"                                    \
    "    head = json.dumps(head).encode()\n"                                                       \
    "    open(path, 'wb').write(struct.pack('<Q', len(head)) + head + data)\n"                     \
    "def index(path, **shards):\n"                                                                 \
    "    os.makedirs(path, exist_ok=True)\n"                                                       \
    "    with open(path + '/model.safetensors.index.json', 'w') as f:\n"                           \
    "        json.dump({'weight_map': {n: s + '.safetensors' for n, s in shards.items()}}, "       \
    "f)\n"

/* Opens name, whose arrays hold their own texts: "a=xy b=z". */
static void check_holds(const char *name, const char *arrays, const char *unread) {
    struct store store;
    struct error e = {0};
    char found[200] = "";
    CHECK_MSG(store_open(&store, scratch_path(name), &e), "%s", e.message);
    for (size_t i = 0; i < store.count; i++) {
        const struct array *a = &store.arrays[i];
        CHECK(a->mapped && a->dims == 1 && a->shape[0] == a->bytes.size && !a->hash);
        snprintf(found + strlen(found), sizeof found - strlen(found), "%s%s=%.*s", i ? " " : "",
                 a->name, (int)a->bytes.size, (const char *)a->bytes.data);
    }
    CHECK_MSG(strcmp(found, arrays) == 0, "%s holds %s, not %s", name, found, arrays);
    CHECK_MSG(unread ? store.unread && strcmp(store.unread, unread) == 0 : !store.unread,
              "%s does not read %s", name, store.unread ? store.unread : "nothing");
    CHECK(store.hash == 0 && store.private_bytes == 0);
    store_close(&store);
}

static void test_safetensors(void) {
    struct store store;
    struct error e = {0};
    CHECK(scratch_python(SAFETENSORS
                         "st('st/model.safetensors', b='hello', a='xyz')\n"
                         "open('st/config.json', 'w').write('{}')\n"
                         "open('st/tokenizer.model', 'w').write('model')\n"
                         "st('two/model-00001-of-00002.safetensors', a='x', extra='e')\n"
                         "st('two/model-00002-of-00002.safetensors', b='y')\n"
                         "index('two', b='model-00002-of-00002', a='model-00001-of-00002')\n"
                         "st('early/weights.00.safetensors', a='x')\n"
                         "st('early/weights.01.safetensors', b='y')\n"
                         "st('one/weights.safetensors', a='x')\n"
                         "st('named/consolidated.safetensors', a='x')\n"
                         "st('solo/model-00001-of-00001.safetensors', a='x')\n"
                         "open('named/params.json', 'w').write('{ }')\n"
                         "st('link/blobs/0', a='x')\n"
                         "os.symlink('blobs/0', 'link/model.safetensors')\n"));
    check_holds("st", "a=xyz b=hello", NULL);
    check_holds("two", "a=x b=y extra=e", NULL);
    check_holds("early", "a=x b=y", NULL);
    check_holds("one", "a=x", NULL);
    check_holds("link", "a=x", NULL);
    check_holds("st/model.safetensors", "a=xyz b=hello", NULL);
    check_holds("named/consolidated.safetensors", "a=x", NULL);
    check_holds("solo/model-00001-of-00001.safetensors", "a=x", NULL);

    CHECK_MSG(store_open(&store, scratch_path("st"), &e), "%s", e.message);
    CHECK(store.mapped_bytes == 8 && says(store_file(&store, "config.json"), "{}"));
    CHECK(strcmp(where(&store, "a"), scratch_path("st/model.safetensors")) == 0);
    store_close(&store);

    /* The file itself: config and tokenizer are those beside it. */
    CHECK_MSG(store_open(&store, scratch_path("named/consolidated.safetensors"), &e), "%s",
              e.message);
    CHECK(says(store_file(&store, "params.json"), "{ }"));
    CHECK(strcmp(where(&store, "params.json"), scratch_path("named/params.json")) == 0);
    store_close(&store);
    char *before = getcwd(NULL, 0);
    CHECK(before && chdir(scratch_path("st")) == 0);
    CHECK_MSG(store_open(&store, "model.safetensors", &e), "%s", e.message);
    CHECK(strcmp(where(&store, "tokenizer.model"), "tokenizer.model") == 0);
    store_close(&store);
    CHECK(before && chdir(before) == 0);
    free(before);
}

/* Which weights of a folder are read where it holds several. */
static void test_choice(void) {
    CHECK(scratch_python(SAFETENSORS "st('c1/model.safetensors', a='one')\n"
                                     "st('c1/model-00001-of-00002.safetensors', a='two')\n"
                                     "index('c1', a='model-00001-of-00002')\n"
                                     "np.savez('c1/golden.npz', w=w)\n"
                                     "st('c2/model-1.safetensors', a='x')\n"
                                     "st('c2/weights.00.safetensors', a='old')\n"
                                     "st('c2/adapter_model.safetensors', a='no')\n"
                                     "index('c2', a='model-1')\n"
                                     "np.savez('c2/0.npz', w=w)\n"
                                     "st('c3/weights.00.safetensors', a='x')\n"
                                     "np.savez('c3/b.npz', w=w); np.savez('c3/a.npz', w=w)\n"
                                     "st('c4/model.safetensors', a='one')\n"
                                     "np.savez('c4/weights.npz', a=u1('npz'))\n"
                                     "np.savez('c4/a.npz', w=w)\n"));
    check_holds("c1", "a=one", "model-00001-of-00002.safetensors");
    check_holds("c2", "a=x", "adapter_model.safetensors");
    check_holds("c3", "a=x", "a.npz");

    struct store store;
    struct error e = {0};
    CHECK_MSG(store_open(&store, scratch_path("c4"), &e), "%s", e.message);
    CHECK(store.unread && strcmp(store.unread, "model.safetensors") == 0);
    CHECK(store.count == 1 && says(store.arrays[0].bytes, "npz"));
    store_close(&store);
}

static void test_safetensors_refused(void) {
    CHECK(scratch_python(
        SAFETENSORS
        "two = dict(a='m-00001-of-00002', b='m-00002-of-00002')\n"
        "st('d1/m-00001-of-00002.safetensors', a='x'); index('d1', **two)\n"
        "st('d2/m-00001-of-00002.safetensors', a='x'); index('d2', **two)\n"
        "st('d2/m-00002-of-00002.safetensors', c='x')\n"
        "st('d3/m-00001-of-00002.safetensors', a='x', b='x'); index('d3', **two)\n"
        "st('d3/m-00002-of-00002.safetensors', b='x')\n"
        "st('d4/m-00001-of-00002.safetensors', a='x')\n"
        "st('d5/weights.00.safetensors', a='x'); st('d5/weights.02.safetensors', b='x')\n"
        "st('d6/weights.00.safetensors', a='x'); st('d6/weights.safetensors', b='x')\n"
        "st('d7/weights.0.safetensors', a='x'); st('d7/weights.00.safetensors', b='x')\n"
        "st('d8/sub/a.safetensors', a='x'); index('d8', a='sub/a')\n"
        "st('d8/b.safetensors', a='x')\n"
        "st('d9/model.safetensors')\n"
        "os.mkdir('da'); open('da/model.safetensors', 'w').write('version https://git-lfs.')\n"
        "st('db/x.safetensors', a='x'); open('db/model.safetensors.index.json', 'w').write('{')\n"
        "os.mkdir('dc'); os.symlink('gone', 'dc/model.safetensors')\n"
        "os.mkdir('dd'); index('dd', **two)\n"));
    check_refused(scratch_path("d1"), STATUS_MODEL,
                  "index.json names m-00002-of-00002.safetensors, which is not in the folder");
    check_refused(scratch_path("d2"), STATUS_MODEL,
                  "index.json puts b into m-00002-of-00002.safetensors, which does not hold it");
    check_refused(scratch_path("d3"), STATUS_MODEL, "the shards are not of one model");
    check_refused(scratch_path("d4"), STATUS_MODEL, "but no model.safetensors.index.json");
    check_refused(scratch_path("d4/m-00001-of-00002.safetensors"), STATUS_MODEL,
                  "is one of several shards; name the folder");
    check_refused(scratch_path("d5"), STATUS_MODEL, "lacks the shard weights.01.safetensors, ");
    check_refused(scratch_path("d6"), STATUS_MODEL,
                  "d6 holds both weights.safetensors and weights.00.safetensors");
    check_refused(scratch_path("d7"), STATUS_MODEL,
                  "d7 holds both weights.0.safetensors and weights.00.safetensors");
    check_refused(scratch_path("d8"), STATUS_FORMAT, "puts a into 'sub/a.safetensors', which is");
    check_refused(scratch_path("d9"), STATUS_MODEL, "d9 holds no arrays; a model is");
    check_refused(scratch_path("d9/model.safetensors"), STATUS_MODEL, "holds no arrays; a model");
    check_refused(scratch_path("da"), STATUS_FORMAT, "da/model.safetensors is a git-lfs pointer");
    check_refused(scratch_path("db"), STATUS_FORMAT, "db/model.safetensors.index.json is no JSON");
    check_refused(scratch_path("dc"), STATUS_FILE, "dc/model.safetensors cannot be opened");
    check_refused(scratch_path("dd"), STATUS_MODEL, "dd holds no arrays");

    /* Without any shard a folder may still serve to tokenize. */
    scratch_text("dd/tokenizer.model", "model");
    check_holds("dd", "", NULL);
}

/* --- the hash --------------------------------------------------------------------------------- */

static uint64_t hash_of(const char *name) {
    struct store store;
    struct error e = {0};
    CHECK_MSG(store_open(&store, scratch_path(name), &e), "%s", e.message);
    uint64_t hash = store.hash;
    store_close(&store);
    return hash;
}

/* Files that hold the same arrays, and files that differ from the first in one thing. */
static void test_hash(void) {
    static const char *const same[] = {"order.npz", "packed.npz", "whole", "parts", "config.npz"};
    static const char *const other[] = {"bit.npz", "name.npz", "shape.npz", "less.npz", "more.npz"};
    CHECK(scratch_python(
        COMMON
        "v = np.arange(3, dtype='f2'); a = {'w': w, 'v': v}\n"
        "np.savez('hash.npz', **a)\n"
        "np.savez('order.npz', v=v, w=w)\n"
        "np.savez_compressed('packed.npz', **a)\n"
        "folder('whole', weights_npz=a)\n"
        "folder('parts', weights_0_npz={'w': w}, weights_1_npz={'v': v})\n"
        "np.savez('config.npz', **a, **{'config.json': u1('{}')})\n"
        "b = w.copy(); b.view('u1')[2, 7] ^= 1\n"
        "np.savez('bit.npz', v=v, w=b)\n"
        "np.savez('name.npz', v=v, u=w)\n"
        "np.savez('shape.npz', v=v, w=w.reshape(4, 3))\n"
        "np.savez('less.npz', w=w)\n"
        "np.savez('more.npz', u=v, **a)\n"
        "def fnv(data, h=14695981039346656037):\n"
        "    for byte in data: h = (h ^ byte) * 1099511628211 % 2**64\n"
        "    return h\n"
        "assert fnv(b'foobar') == 0x85944171f73967e8\n"
        "infos = sorted(zipfile.ZipFile('hash.npz').infolist(), key=lambda i: i.filename)\n"
        "parts = [fnv(i.filename.encode() + b'\\0' + struct.pack('<QQ', i.file_size, i.CRC))\n"
        "         for i in infos]\n"
        "open('hash', 'wb').write(struct.pack('=Q', fnv(struct.pack('<2Q', *parts))))\n"
        "os.mkdir('words'); open('words/tokenizer.json', 'w').write('{}')\n"));
    uint64_t hash = hash_of("hash.npz"), want = 0;
    size_t size = 0;
    unsigned char *bytes = scratch_read("hash", &size);
    if (size == sizeof want) memcpy(&want, bytes, size);
    free(bytes);
    CHECK_MSG(hash && hash == want, "%016llx, not %016llx", (unsigned long long)hash,
              (unsigned long long)want);
    for (size_t i = 0; i < 5; i++) {
        CHECK_MSG(hash_of(same[i]) == hash, "%s has another hash", same[i]);
        CHECK_MSG(hash_of(other[i]) != hash && hash_of(other[i]), "%s", other[i]);
    }
    CHECK(hash_of("words") == 0);
}

/* In a child, for the administrator may read everything. */
static void test_permission(void) {
    scratch_text("locked.npz", "x");
    CHECK(chmod(scratch_folder, 0755) == 0 && chmod(scratch_path("locked.npz"), 0) == 0);
    CHECK(mkdir(scratch_path("closed"), 0) == 0 && mkdir(scratch_path("listed"), 0755) == 0);
    scratch_text("listed/config.json", "{}");
    CHECK(chmod(scratch_path("listed"), 0444) == 0);
    pid_t child = fork();
    if (child == 0) {
        check_ok = geteuid() != 0 || setuid(65534) == 0;
        check_refused(scratch_path("locked.npz"), STATUS_FILE, "Permission denied");
        check_refused(scratch_path("closed"), STATUS_FILE, "Permission denied");
        check_refused(scratch_path("listed"), STATUS_FILE, "config.json cannot be opened: Perm");
        fflush(stdout);
        _exit(!check_ok);
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    chmod(scratch_path("closed"), 0700);
    chmod(scratch_path("listed"), 0700);
}

int main(void) {
    scratch_open();
    check_run("store: a single file", test_single);
    check_run("store: single files that are refused", test_single_refused);
    check_run("store: a folder", test_folder);
    check_run("store: shards", test_shards);
    check_run("store: weights that are not read", test_unread);
    check_run("store: safetensors", test_safetensors);
    check_run("store: which of a folder's weights", test_choice);
    check_run("store: safetensors that are refused", test_safetensors_refused);
    check_run("store: the hash", test_hash);
    check_run("store: no permission", test_permission);
    return check_done();
}
