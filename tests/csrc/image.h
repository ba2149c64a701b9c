/* image.h: a copy of an object's bytes, to see what changed and to make an object that is left as they say. */
#ifndef IMAGE_H
#define IMAGE_H

#include "check.h"

struct image {
    size_t bytes, room;
    unsigned char *data;
};

/* The object's bytes from `from` to `end`, or as many as there are; those in front of `from` stay what they were. */
static inline void image_read(int fd, struct image *image, size_t from, uint64_t end) {
    struct stat st;
    CHECK(fstat(fd, &st) == 0);
    image->bytes = (size_t)csm_min((uint64_t)st.st_size, end);
    if (image->room < end) CHECK((image->data = realloc(image->data, image->room = end)));
    for (size_t at = from; at < image->bytes;) {
        ssize_t n = pread(fd, image->data + at, image->bytes - at, (off_t)at);
        CHECK(n > 0);
        at += (size_t)n;
    }
}

static inline bool image_is(const struct image *a, const struct image *b) {
    return a->bytes == b->bytes && (a->bytes == 0 || memcmp(a->data, b->data, a->bytes) == 0);
}

static inline void image_swap(struct image *a, struct image *b) {
    struct image swap = *a;
    *a = *b;
    *b = swap;
}

/* Who holds the write lock, as an owner word; 0: nobody. */
static inline uint64_t image_lock(const struct image *image) {
    uint64_t word = 0;
    size_t at = offsetof(struct csm_header, write_lock);
    if (image->bytes >= at + sizeof word) memcpy(&word, image->data + at, sizeof word);
    return word;
}

static inline int image_object(const struct image *image) {
    int fd = check_object();
    for (size_t at = 0; at < image->bytes;) {
        ssize_t n = pwrite(fd, image->data + at, image->bytes - at, (off_t)at);
        CHECK(n > 0);
        at += (size_t)n;
    }
    return fd;
}

#endif
