/* A borrowed run of bytes. data is NULL when there is nothing (an absent file, say). */
#ifndef NIBBLE_BASE_SPAN_H
#define NIBBLE_BASE_SPAN_H

#include <stddef.h>

struct span {
    const unsigned char *data;
    size_t size;
};

#endif
