#include "base/map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"

static bool map_fd(int fd, const char *path, struct span *bytes, struct error *e) {
    struct stat st;
    if (fstat(fd, &st) != 0) return fail(e, STATUS_FILE, "%s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return fail(e, STATUS_FILE, "%s is not a regular file", path);
    if (st.st_size <= 0) return fail(e, STATUS_FORMAT, "%s is empty; fetch it again", path);
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (p == MAP_FAILED && errno == ENOMEM && memory_addresses() != SIZE_MAX) {
        return fail(e, STATUS_MEMORY,
                    "%s cannot be mapped: %zu MB of addresses are needed and %zu MB are left; "
                    "raise the limit (ulimit -v)",
                    path, (size_t)st.st_size >> 20, memory_addresses() >> 20);
    }
    if (p == MAP_FAILED)
        return fail(e, STATUS_FILE, "%s cannot be mapped: %s", path, strerror(errno));
    madvise(p, (size_t)st.st_size, MADV_HUGEPAGE); /* if the file system has them */
    *bytes = (struct span){p, (size_t)st.st_size};
    return true;
}

bool map_open(const char *path, struct span *bytes, struct error *e) {
    *bytes = (struct span){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not make us wait */
    if (fd < 0) return fail(e, STATUS_FILE, "%s cannot be opened: %s", path, strerror(errno));
    bool ok = map_fd(fd, path, bytes, e);
    close(fd);
    return ok;
}

void map_close(struct span *bytes) {
    if (bytes->data) munmap((void *)bytes->data, bytes->size);
    *bytes = (struct span){0};
}
