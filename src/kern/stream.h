/* How memory is read fast. */
#ifndef NIBBLE_KERN_STREAM_H
#define NIBBLE_KERN_STREAM_H

/* Bytes that are asked for ahead: far into the second cache, which waits for more lines at a time
 * than the first, near from there into the first. */
enum { STREAM_FAR = 3072, STREAM_NEAR = 768 };

/* To be called once for each 64 bytes of a stream. */
static inline void stream_ahead(const unsigned char *p) {
    __builtin_prefetch(p + STREAM_FAR, 0, 2);
    __builtin_prefetch(p + STREAM_NEAR);
}

#endif
