#include "text/spm.h"

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include <sentencepiece_processor.h>

#include "text/spm_file.h"

struct spm {
    sentencepiece::SentencePieceProcessor processor;
    struct spm_file file = {};
    int count = 0, bos = -1, eos = -1, unknown = -1;

    ~spm() {
        spm_file_close(&file);
    }
};

namespace {

void tell(char *why, size_t why_size, const char *reason) noexcept {
    if (why_size) std::snprintf(why, why_size, "%s", reason);
}

/* Runs body; a status that is not OK and an exception become a reason. */
template <typename Body> bool run(char *why, size_t why_size, Body body) noexcept {
    try {
        const sentencepiece::util::Status status = body();
        if (status.ok()) return true;
        tell(why, why_size, status.message());
    } catch (const std::bad_alloc &) {
        tell(why, why_size, "");
    } catch (const std::exception &x) {
        tell(why, why_size, x.what());
    } catch (...) {
        tell(why, why_size, "unknown error");
    }
    return false;
}

sentencepiece::util::Status refuse(const char *reason) {
    return {sentencepiece::util::StatusCode::kInvalidArgument, reason};
}

bool is_piece(const struct spm *s, int id) {
    return id >= 0 && id < s->count;
}

} // namespace

struct spm *spm_open(const void *data, size_t size, char *why, size_t why_size) {
    std::unique_ptr<spm> s;
    bool ok = run(why, why_size, [&] {
        s = std::make_unique<spm>();
        const struct span bytes = {static_cast<const unsigned char *>(data), size};
        const char *reason = spm_file_read(&s->file, bytes);
        if (reason) return refuse(reason);
        const char *kept = reinterpret_cast<const char *>(s->file.kept);
        auto status = s->processor.LoadFromSerializedProto({kept, s->file.kept_size});
        spm_file_drop(&s->file);
        if (!status.ok()) return status;
        s->count = s->processor.GetPieceSize();
        s->bos = s->processor.bos_id();
        s->eos = s->processor.eos_id();
        s->unknown = s->processor.unk_id();
        return status;
    });
    return ok ? s.release() : nullptr;
}

void spm_close(struct spm *s) {
    delete s;
}

int spm_count(const struct spm *s) {
    return s->count;
}

int spm_bos(const struct spm *s) {
    return s->bos;
}

int spm_eos(const struct spm *s) {
    return s->eos;
}

int spm_unknown(const struct spm *s) {
    return s->unknown;
}

enum spm_kind spm_kind(const struct spm *s, int id) {
    enum spm_kind kind = SPM_UNUSED;
    if (!is_piece(s, id)) return kind;
    run(nullptr, 0, [&] {
        const auto &p = s->processor;
        kind = p.IsUnknown(id)   ? SPM_UNKNOWN
               : p.IsControl(id) ? SPM_CONTROL
               : p.IsByte(id)    ? SPM_BYTE
               : p.IsUnused(id)  ? SPM_UNUSED
                                 : SPM_NORMAL;
        return sentencepiece::util::Status();
    });
    return kind;
}

bool spm_is_user_defined(const struct spm *s, int id) {
    for (size_t i = 0; i < s->file.user_defined_count; i++) {
        if (s->file.user_defined[i] == id) return true;
    }
    return false;
}

const char *spm_piece(const struct spm *s, int id, size_t *size) {
    const char *text = "";
    *size = 0;
    if (!is_piece(s, id)) return text;
    run(nullptr, 0, [&] {
        const std::string &piece = s->processor.IdToPiece(id);
        text = piece.c_str();
        *size = piece.size();
        return sentencepiece::util::Status();
    });
    return text;
}

const char *spm_unknown_surface(const struct spm *s) {
    return s->file.unknown;
}

bool spm_dummy_prefix(const struct spm *s) {
    return s->file.dummy_prefix;
}

bool spm_single_spaces(const struct spm *s) {
    return s->file.single_spaces;
}

bool spm_keeps_all(const struct spm *s) {
    return !s->file.rules && !s->file.single_spaces && s->file.byte_fallback;
}

bool spm_encode_at(const struct spm *s, const char *text, size_t size, struct spm_token **tokens,
                   size_t *count, char *why, size_t why_size) {
    return run(why, why_size, [&] {
        if (size > INT_MAX / s->file.growth - 1) return refuse("it is too long, cut it into parts");
        sentencepiece::ImmutableSentencePieceText found;
        auto status = s->processor.Encode({text, size}, found.mutable_proto());
        if (!status.ok()) return status;
        const size_t n = found.pieces_size();
        *tokens = static_cast<struct spm_token *>(std::malloc(sizeof(struct spm_token) * (n + 1)));
        if (!*tokens) throw std::bad_alloc();
        for (*count = 0; *count < n; ++*count) {
            const auto piece = found.pieces(static_cast<int>(*count));
            (*tokens)[*count] = {static_cast<int>(piece.id()), piece.begin(), piece.end()};
        }
        return status;
    });
}

bool spm_encode(const struct spm *s, const char *text, size_t size, int **ids, size_t *count,
                char *why, size_t why_size) {
    return run(why, why_size, [&] {
        if (size > INT_MAX / s->file.growth - 1) return refuse("it is too long, cut it into parts");
        std::vector<int> found;
        auto status = s->processor.Encode({text, size}, &found);
        if (!status.ok()) return status;
        *ids = static_cast<int *>(std::malloc(sizeof(int) * (found.size() + 1)));
        if (!*ids) throw std::bad_alloc();
        *count = found.size();
        if (*count) std::memcpy(*ids, found.data(), sizeof(int) * found.size());
        return status;
    });
}
