/* The element types of arrays in files: names and sizes. Arithmetic on them is in src/num. */
#ifndef NIBBLE_BASE_DTYPE_H
#define NIBBLE_BASE_DTYPE_H

#include <stddef.h>

enum dtype {
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_F64,
    DTYPE_U8,
    DTYPE_I8,
    DTYPE_BOOL,
    DTYPE_U16,
    DTYPE_I16,
    DTYPE_U32,
    DTYPE_I32,
    DTYPE_U64,
    DTYPE_I64,
    DTYPE_COUNT
};

const char *dtype_name(enum dtype t);  /* "f32", "bf16", "u8", ... */
size_t dtype_bytes(enum dtype t);      /* bytes of one element, 1 to 8 */
const char *dtype_descr(enum dtype t); /* NPY's: "<f4", "<V2" for bf16 as MLX writes it, "|u1" */

/* The type that an NPY descr means, or DTYPE_COUNT if nibble does not read it. Little endian only;
 * bfloat16 is any first character, then V2. */
enum dtype dtype_from_descr(const char *descr);

#endif
