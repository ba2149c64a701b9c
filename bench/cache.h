/* cache.h: what the programs that measure the C core share: caches to measure, filling them, and telling times.
 *
 * It uses api.h and nothing below it. The shm objects a program makes are named after `object` and removed at its end.
 * Each program includes this once. */
#ifndef BENCH_CACHE_H
#define BENCH_CACHE_H

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "api.h"

enum { KEY_BYTES = 16, KIB = 1024 };

static const uint64_t MIB = 1 << 20;

static const char *object;
static char names[8][128];
static int objects;

static void remove_objects(void) {
    for (int i = 0; i < objects; i++) shm_unlink(names[i]);
}

static void expect(int64_t got, int64_t want, const char *what) {
    if (got == want) return;
    fprintf(stderr, "core: %s returned %lld, not %lld\n", what, (long long)got, (long long)want);
    exit(1);
}

static csm *make(uint64_t memory_limit, uint64_t max_items) {
    csm_settings settings = {
        .memory_limit = memory_limit, .max_items = max_items, .rows = 64, .flights = 64, .nodes = 64};
    char *name = names[objects++];
    snprintf(name, sizeof names[0], "%s-%d", object, objects);
    int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600), created, flipped;
    if (fd < 0) {
        perror(name);
        exit(1);
    }
    csm *h;
    expect(csm_open(fd, &settings, 1000000000, &h, &created), CSM_OK, "csm_open");
    expect(csm_join(h, CSM_APP, 1, "", 0, &flipped), CSM_OK, "csm_join");
    return h;
}

static void set_key(char *key, uint64_t n) {
    memcpy(key, "product:", 8);
    memcpy(key + 8, &n, 8);
}

static void store(csm *h, uint64_t n, const void *data, uint64_t bytes) {
    char key[KEY_BYTES];
    csm_call call = {0};
    csm_piece piece = {data, bytes};
    set_key(key, n);
    expect(csm_claim(h, key, KEY_BYTES, NULL, &call), CSM_OWNER, "csm_claim");
    expect(csm_publish(h, &call, key, KEY_BYTES, CSM_VALUE, 1, &piece, 1), CSM_OK, "csm_publish");
}

/* 0 .. n - 1, in an order that is the same in each run. */
static uint32_t *shuffle(uint64_t n) {
    uint32_t *order = malloc(n * sizeof *order);
    uint64_t seed = 1;
    for (uint64_t i = 0; i < n; i++) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        uint64_t j = (seed >> 33) % (i + 1);
        order[i] = order[j];
        order[j] = (uint32_t)i;
    }
    return order;
}

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void say(const char *name, uint64_t start, uint64_t end, uint64_t calls) {
    printf("%s\t%.2f\n", name, (double)(end - start) / (double)calls);
    fflush(stdout);
}

static uint64_t number(const char *text) { return strtoull(text, NULL, 10); }

#endif
