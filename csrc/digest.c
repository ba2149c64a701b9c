/* digest.c: see digest.h. Checked against Python's hashlib, whose blake2s(data, digest_size=24) it is, in tests/csrc/test_digest.c. */
#include "digest.h"

#include <string.h>

enum { BLOCK = 64, ROUNDS = 10, DIGEST_BYTES = CSM_DIGEST_WORDS * 8 };

static const uint32_t START[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

static const uint8_t SIGMA[ROUNDS][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

static inline uint32_t rotr(uint32_t x, int b) { return x >> b | x << (32 - b); }

static void mix(uint32_t v[16], int a, int b, int c, int d, uint32_t x, uint32_t y) {
    v[a] += v[b] + x;
    v[d] = rotr(v[d] ^ v[a], 16);
    v[c] += v[d];
    v[b] = rotr(v[b] ^ v[c], 12);
    v[a] += v[b] + y;
    v[d] = rotr(v[d] ^ v[a], 8);
    v[c] += v[d];
    v[b] = rotr(v[b] ^ v[c], 7);
}

/* `seen`: bytes up to the end of this block, without its padding. */
static void compress(uint32_t state[8], const unsigned char block[BLOCK], uint64_t seen, int last) {
    uint32_t v[16], m[16];
    for (int i = 0; i < 16; i++) {
        const unsigned char *p = block + 4 * i;
        m[i] = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    }
    for (int i = 0; i < 8; i++) {
        v[i] = state[i];
        v[i + 8] = START[i];
    }
    v[12] ^= (uint32_t)seen;
    v[13] ^= (uint32_t)(seen >> 32);
    if (last) v[14] = ~v[14];
    for (int round = 0; round < ROUNDS; round++) {
        const uint8_t *s = SIGMA[round];
        mix(v, 0, 4, 8, 12, m[s[0]], m[s[1]]);
        mix(v, 1, 5, 9, 13, m[s[2]], m[s[3]]);
        mix(v, 2, 6, 10, 14, m[s[4]], m[s[5]]);
        mix(v, 3, 7, 11, 15, m[s[6]], m[s[7]]);
        mix(v, 0, 5, 10, 15, m[s[8]], m[s[9]]);
        mix(v, 1, 6, 11, 12, m[s[10]], m[s[11]]);
        mix(v, 2, 7, 8, 13, m[s[12]], m[s[13]]);
        mix(v, 3, 4, 9, 14, m[s[14]], m[s[15]]);
    }
    for (int i = 0; i < 8; i++) state[i] ^= v[i] ^ v[i + 8];
}

void csm_digest(const void *data, size_t bytes, uint64_t out[CSM_DIGEST_WORDS]) {
    const unsigned char *from = data;
    unsigned char last[BLOCK] = {0}, digest[DIGEST_BYTES];
    uint32_t state[8];
    memcpy(state, START, sizeof state);
    state[0] ^= 0x01010000 ^ DIGEST_BYTES;
    size_t at = 0;
    for (; bytes - at > BLOCK; at += BLOCK) compress(state, from + at, at + BLOCK, 0);
    if (bytes - at) memcpy(last, from + at, bytes - at);
    compress(state, last, bytes, 1);
    for (int i = 0; i < DIGEST_BYTES; i++) digest[i] = (unsigned char)(state[i / 4] >> (8 * (i % 4)));
    memcpy(out, digest, sizeof digest);
}
