// Writes cases.jsonl: what SentencePiece itself makes of texts and of ids. See README.md.
#include <sentencepiece_processor.h>

#include <cstdio>
#include <random>
#include <string>
#include <vector>

using sentencepiece::SentencePieceProcessor;
using std::string;
using std::vector;

static const vector<string> texts = {
    "",
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    "\t",
    "\r\n",
    " \n ",
    "a",
    " a",
    "a ",
    "  a  ",
    "a  b",
    "a b",
    "Once upon a time",
    " Once upon a time",
    "Once  upon   a    time ",
    "The cat said nothing.\nThe girl counted the stars.\n",
    "\tif (sum > 100) {\n\t\treturn sum;\n\t}",
    "        return sum;  // enough",
    "    ",
    "1999 is not 2024, and 3.14159 is not 22/7",
    "größer als über die Brücke",
    "forêt, crêpe, garçon",
    "Девочка и кошка",
    "\xe4\xbb\x8a\xe5\xa4\xa9\xe5\xa4\xa9\xe6\xb0\x94\xe5\xbe\x88\xe5\xa5\xbd",
    "한국어",
    "שלום",
    "😀",
    "a😀b",
    "👩‍💻 👍🏽",
    "\xef\xac\x81sh \xef\xbc\xa1\xef\xbc\xa2 \xe2\x91\xa0 \xef\xb7\xba \xc2\xbd",
    "e\xcc\x81 \xc3\xa9",
    "\xc2\xa0nbsp\xe3\x80\x80wide",
    "▁",
    "▁the▁",
    "a▁b",
    " ▁ ▁▁ ",
    "<s>",
    "</s>",
    "<unk>",
    "<0x41>",
    "<s>Once upon</s>",
    "<tool>x<tools>y",
    "<toolx",
    "<turn>user<turn|end>",
    "def f():",
    "adefb",
    "[end]",
    "▁ctl",
    " ctl",
    "the",
    " the ",
    "  the  ",
    "zqzqzqxx",
    "\x01",
    "a\x01"
    "b",
    "\x7f",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    "aaaaaa",
    "morningmorningeveningcatcatwatermountainthousandfishermannothingbreakfastmorningmorningevenin"
    "g",
    string("\0", 1),
    string("a\0b", 3),
    string("\0\0 \0", 4),
    "\xff",
    "a\xff"
    "b",
    "\xc3",
    "\xe2\x96",
    "\xe2\x96 x",
    "\xed\xa0\x80",
    "\xf4\x90\x80\x80",
    "\xc0\x80",
    "\x80\x81\x82",
    "caf\xe9 au lait",
};

// A text that holds special tokens, cut up: what begins with \x01 is one of them.
static const vector<vector<string>> cut = {
    {"\x01<s>", "Once upon a time", "\x01</s>"},
    {"\x01<s>", " Once ", "\x01</s>", " "},
    {"\x01<s>", "\x01<s>", "\x01</s>"},
    {"\x01<unk>"},
    {"the ", "\x01<unk>", " cat"},
    {"<", "\x01<s>", ">"},
    {"<s", "\x01<s>", "</s "},
    {"größer", "\x01</s>", "😀", "\x01<s>", "\n"},
};
static const vector<vector<string>> cut_symbols = {
    {"\x01<turn>", "user", "\x01<turn|end>", "\n"},
    {"<turn|en", "\x01<turn>", "|end", "\x01<turn|end>", "\x01[end]"},
    {"a", "\x01▁ctl", "\x01▁ctl", "▁", "\x01▁ctl"},
    {"\x01[end]", "les", "\x01[end]less", "\x01[end]", "\x01[end]less", "less"},
    {"<tool>", "\x01<turn>", "<tools>", "\x01[end]", "def"},
};

static bool is_plain(const string &s) {
    for (size_t i = 0; i < s.size();) {
        unsigned char c = s[i];
        size_t n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf4 ? 4 : 0;
        if (c == 0 || n == 0 || i + n > s.size() || (c == 0xed && (s[i + 1] & 0x20))) return false;
        for (size_t k = 1; k < n; k++)
            if ((s[i + k] & 0xc0) != 0x80) return false;
        i += n;
    }
    return true;
}

static void write_case(const char *kind, const char *model, const string &text,
                       const vector<int> &ids) {
    printf("{\"%s\": \"%s\", ", kind, model);
    bool plain = is_plain(text);
    printf(plain ? "\"text\": \"" : "\"hex\": \"");
    for (unsigned char c : text) {
        if (!plain)
            printf("%02x", c);
        else if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < ' ')
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    printf("\", \"ids\": [");
    for (size_t i = 0; i < ids.size(); i++) printf("%s%d", i ? ", " : "", ids[i]);
    printf("]}\n");
}

static void write_cut(const SentencePieceProcessor &p, const char *model,
                      const vector<string> &parts) {
    string text;
    vector<int> ids;
    for (const string &part : parts) {
        bool special = part[0] == 1;
        text += part.substr(special);
        vector<int> found = {special ? p.PieceToId(part.substr(1)) : -1};
        if (!special) found = p.EncodeAsIds(part);
        ids.insert(ids.end(), found.begin(), found.end());
    }
    write_case("special", model, text, ids);
}

static void write_decoded(const SentencePieceProcessor &p, const char *model) {
    static const vector<string> chars = {"a", " ", "é", "€", "😀", "▁", "\n"};
    std::mt19937 random(1);
    vector<int> spaced, control, other;
    for (int id = 0; id < p.GetPieceSize(); id++) {
        if (p.IsByte(id)) continue;
        bool is_spaced = p.IdToPiece(id).rfind("▁", 0) == 0;
        (p.IsControl(id) ? control : is_spaced ? spaced : other).push_back(id);
    }
    bool has_bytes = p.IsByte(p.PieceToId("<0x41>"));
    for (int n = 0; n < 120; n++) {
        vector<int> ids;
        for (unsigned k = random() % 8; k > 0; k--) {
            unsigned pick = random() % 10;
            if (pick == 0)
                ids.push_back(p.unk_id());
            else if (pick < 3)
                ids.push_back(control[random() % control.size()]);
            else if (pick == 3)
                ids.push_back(p.PieceToId("▁"));
            else if (pick < 6)
                ids.push_back(spaced[random() % spaced.size()]);
            else if (pick < 8 || !has_bytes)
                ids.push_back(other[random() % other.size()]);
            else {
                for (unsigned char c : chars[random() % chars.size()]) {
                    char name[8];
                    snprintf(name, sizeof name, "<0x%02X>", c);
                    ids.push_back(p.PieceToId(name));
                }
            }
        }
        write_case("decode", model, p.DecodeIds(ids), ids);
    }
}

int main() {
    for (const char *model : {"bpe_bytes", "unigram_rules", "bpe_symbols", "char_spaces"}) {
        SentencePieceProcessor p;
        if (!p.Load(string(model) + ".model").ok()) return 1;
        for (const string &text : texts) write_case("encode", model, text, p.EncodeAsIds(text));
        for (const auto &parts : cut) write_cut(p, model, parts);
        if (string(model) == "bpe_symbols")
            for (const auto &parts : cut_symbols) write_cut(p, model, parts);
        write_decoded(p, model);
    }
}
