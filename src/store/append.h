/* Puts one of a model's files (store.h lists them) where store_open() will find it. */
#ifndef NIBBLE_STORE_APPEND_H
#define NIBBLE_STORE_APPEND_H

#include "base/error.h"
#include "base/span.h"

/* path is what store_open takes. Beside a folder's weights, or a .safetensors file, the file is
 * written whole under a temporary name and renamed. To an .npz it is appended as an array of u1: in
 * place, without copying what is there, since only the directory at its end has to move; one of
 * that name is replaced. name is short. */
bool append_file(const char *path, const char *name, struct span bytes, struct error *e);

#endif
