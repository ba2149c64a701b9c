/* hash.c: see hash.h. Checked against the paper's reference vectors in tests/csrc/test_hash.c. */
#include "hash.h"

static inline uint64_t rotl(uint64_t x, int b) { return x << b | x >> (64 - b); }

static inline uint64_t word(const unsigned char *p) {
    uint64_t w;
    memcpy(&w, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    w = __builtin_bswap64(w);
#endif
    return w;
}

#define ROUND                                                                                                  \
    do {                                                                                                       \
        v0 += v1, v1 = rotl(v1, 13), v1 ^= v0, v0 = rotl(v0, 32);                                              \
        v2 += v3, v3 = rotl(v3, 16), v3 ^= v2;                                                                 \
        v0 += v3, v3 = rotl(v3, 21), v3 ^= v0;                                                                 \
        v2 += v1, v1 = rotl(v1, 17), v1 ^= v2, v2 = rotl(v2, 32);                                              \
    } while (0)

struct csm_hash csm_hash(const uint64_t secret[2], const void *data, size_t bytes) {
    const unsigned char *p = data;
    uint64_t v0 = secret[0] ^ UINT64_C(0x736f6d6570736575);
    uint64_t v1 = secret[1] ^ UINT64_C(0x646f72616e646f6d) ^ 0xee; /* 0xee: 128-bit output */
    uint64_t v2 = secret[0] ^ UINT64_C(0x6c7967656e657261);
    uint64_t v3 = secret[1] ^ UINT64_C(0x7465646279746573);
    uint64_t last = (uint64_t)bytes << 56;
    const unsigned char *end = p + (bytes & ~(size_t)7);
    for (; p != end; p += 8) {
        uint64_t m = word(p);
        v3 ^= m;
        ROUND;
        ROUND;
        v0 ^= m;
    }
    for (size_t i = 0; i < (bytes & 7); i++) last |= (uint64_t)p[i] << (8 * i);
    v3 ^= last;
    ROUND;
    ROUND;
    v0 ^= last;
    v2 ^= 0xee;
    ROUND;
    ROUND;
    ROUND;
    ROUND;
    struct csm_hash out;
    out.lo = v0 ^ v1 ^ v2 ^ v3;
    v1 ^= 0xdd;
    ROUND;
    ROUND;
    ROUND;
    ROUND;
    out.hi = v0 ^ v1 ^ v2 ^ v3;
    return out;
}
