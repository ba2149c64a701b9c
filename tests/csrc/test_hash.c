/* test_hash.c holds hash.c to: it is SipHash-2-4 with 128 bits of output, bit for bit.
 *
 * By the 64 vectors of the paper's reference implementation (key 00 01 .. 0f; input 00 01 .. of 0 to 63 bytes), and, for
 * other keys, lengths and alignments, by a second implementation here that follows the paper's text rather than hash.c. */
#include "check.h"

#include "hash.h"

static const char *const REFERENCE[64] = {
    "a3817f04ba25a8e66df67214c7550293", "da87c1d86b99af44347659119b22fc45", "8177228da4a45dc7fca38bdef60affe4",
    "9c70b60c5267a94e5f33b6b02985ed51", "f88164c12d9c8faf7d0f6e7c7bcd5579", "1368875980776f8854527a07690e9627",
    "14eeca338b208613485ea0308fd7a15e", "a1f1ebbed8dbc153c0b84aa61ff08239", "3b62a9ba6258f5610f83e264f31497b4",
    "264499060ad9baabc47f8b02bb6d71ed", "00110dc378146956c95447d3f3d0fbba", "0151c568386b6677a2b4dc6f81e5dc18",
    "d626b266905ef35882634df68532c125", "9869e247e9c08b10d029934fc4b952f7", "31fcefac66d7de9c7ec7485fe4494902",
    "5493e99933b0a8117e08ec0f97cfc3d9", "6ee2a4ca67b054bbfd3315bf85230577", "473d06e8738db89854c066c47ae47740",
    "a426e5e423bf4885294da481feaef723", "78017731cf65fab074d5208952512eb1", "9e25fc833f2290733e9344a5e83839eb",
    "568e495abe525a218a2214cd3e071d12", "4a29b54552d16b9a469c10528eff0aae", "c9d184ddd5a9f5e0cf8ce29a9abf691c",
    "2db479ae78bd50d8882a8a178a6132ad", "8ece5f042d5e447b5051b9eacb8d8f6f", "9c0b53b4b3c307e87eaee08678141f66",
    "abf248af69a6eae4bfd3eb2f129eeb94", "0664da1668574b88b935f3027358aef4", "aa4b9dc4bf337de90cd4fd3c467c6ab7",
    "ea5c7f471faf6bde2b1ad7d4686d2287", "2939b0183223fafc1723de4f52c43d35", "7c3956ca5eeafc3e363e9d556546eb68",
    "77c6077146f01c32b6b69d5f4ea9ffcf", "37a6986cb8847edf0925f0f1309b54de", "a705f0e69da9a8f907241a2e923c8cc8",
    "3dc47d1f29c448461e9e76ed904f6711", "0d62bf01e6fc0e1a0d3c4751c5d3692b", "8c03468bca7c669ee4fd5e084bbee7b5",
    "528a5bb93baf2c9c4473cce5d0d22bd9", "df6a301e95c95dad97ae0cc8c6913bd8", "801189902c857f39e73591285e70b6db",
    "e617346ac9c231bb3650ae34ccca0c5b", "27d93437efb721aa401821dcec5adf89", "89237d9ded9c5e78d8b1c9b166cc7342",
    "4a6d8091bf5e7d651189fa94a250b14c", "0e33f96055e7ae893ffc0e3dcf492902", "e61c432b720b19d18ec8d84bdc63151b",
    "f7e5aef549f782cf379055a608269b16", "438d030fd0b7a54fa837f2ad201a6403", "a590d3ee4fbf04e3247e0d27f286423f",
    "5fe2c1a172fe93c4b15cd37caef9f538", "2c97325cbd06b36eb2133dd08b3a017c", "92c814227a6bca949ff0659f002ad39e",
    "dce850110bd8328cfbd50841d6911d87", "67f14984c7da791248e32bb5922583da", "1938f2cf72d54ee97e94166fa91d2a36",
    "74481e9646ed49fe0f6224301604698e", "57fca5de98a9d6d8006438d0583d8a1d", "9fecde1cefdc1cbed4763674d9575359",
    "e3040c00eb28f15366ca73cbd872e740", "7697009a6a831dfecca91c5993670f7a", "5853542321f567a005d547a4f04759bd",
    "5150d1772f50834a503e069a973fbd7c",
};

/* ---- the paper's text */

struct state {
    uint64_t v[4];
};

static uint64_t rotated(uint64_t x, unsigned bits) { return (x << bits) | (x >> (64 - bits)); }

static void sip_round(struct state *s) {
    uint64_t *v = s->v;
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotated(v[1], 13);
    v[3] = rotated(v[3], 16);
    v[1] ^= v[0];
    v[3] ^= v[2];
    v[0] = rotated(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotated(v[1], 17);
    v[3] = rotated(v[3], 21);
    v[1] ^= v[2];
    v[3] ^= v[0];
    v[2] = rotated(v[2], 32);
}

static void absorb(struct state *s, uint64_t m) {
    s->v[3] ^= m;
    for (int i = 0; i < 2; i++) sip_round(s);
    s->v[0] ^= m;
}

static uint64_t squeeze(struct state *s) {
    for (int i = 0; i < 4; i++) sip_round(s);
    return s->v[0] ^ s->v[1] ^ s->v[2] ^ s->v[3];
}

static struct csm_hash by_the_paper(const uint64_t key[2], const unsigned char *data, size_t bytes) {
    static const char constant[] = "somepseudorandomlygeneratedbytes"; /* read as four big-endian words */
    struct state s = {{0}};
    for (int i = 0; i < 32; i++) s.v[i / 8] = s.v[i / 8] << 8 | (unsigned char)constant[i];
    for (int i = 0; i < 4; i++) s.v[i] ^= key[i % 2];
    s.v[1] ^= 0xee;
    uint64_t m = 0;
    for (size_t i = 0; i < bytes; i++) {
        m |= (uint64_t)data[i] << (i % 8 * 8);
        if (i % 8 != 7) continue;
        absorb(&s, m);
        m = 0;
    }
    absorb(&s, m | (uint64_t)(bytes & 0xff) << 56);
    struct csm_hash out;
    s.v[2] ^= 0xee;
    out.lo = squeeze(&s);
    s.v[1] ^= 0xdd;
    out.hi = squeeze(&s);
    return out;
}

/* ---- tests */

static void hex_of(struct csm_hash hash, char out[33]) {
    for (int i = 0; i < 16; i++) {
        uint64_t word = i < 8 ? hash.lo : hash.hi;
        snprintf(out + 2 * i, 3, "%02x", (unsigned)(word >> (i % 8 * 8) & 0xff));
    }
}

static void equals_the_reference_vectors(void) {
    const uint64_t key[2] = {UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)};
    unsigned char input[64];
    char hex[33];
    for (int i = 0; i < 64; i++) {
        input[i] = (unsigned char)i;
        hex_of(csm_hash(key, input, (size_t)i), hex);
        if (strcmp(hex, REFERENCE[i]) != 0) fprintf(stderr, "%d bytes: %s, not %s\n", i, hex, REFERENCE[i]);
        CHECK(strcmp(hex, REFERENCE[i]) == 0);
        hex_of(by_the_paper(key, input, (size_t)i), hex);
        CHECK(strcmp(hex, REFERENCE[i]) == 0);
    }
}

/* 255, 256 and 257 bytes: the length enters modulo 256. */
static void equals_a_second_implementation(void) {
    static const size_t LENGTHS[] = {0, 1, 7, 8, 9, 15, 16, 63, 64, 65, 127, 255, 256, 257, 511, 4095, 65535};
    uint64_t random = 1;
    unsigned char *data = malloc(65535 + 8);
    CHECK(data);
    for (int round = 0; round < 20; round++) {
        const uint64_t key[2] = {check_random(&random) << 32 ^ check_random(&random), check_random(&random) << 20};
        check_fill(data, 65535 + 8, check_random(&random));
        for (size_t i = 0; i < sizeof LENGTHS / sizeof *LENGTHS; i++) {
            size_t offset = check_random(&random) % 8;
            struct csm_hash a = csm_hash(key, data + offset, LENGTHS[i]);
            struct csm_hash b = by_the_paper(key, data + offset, LENGTHS[i]);
            CHECK(a.lo == b.lo && a.hi == b.hi);
        }
    }
    free(data);
}

/* What the index relies on: every bit of key and input counts, in both halves. */
static void every_bit_counts(void) {
    uint64_t key[2] = {1, 2};
    unsigned char input[24] = "a key of 24 bytes or so";
    struct csm_hash plain = csm_hash(key, input, sizeof input);
    for (size_t bit = 0; bit < sizeof input * 8; bit++) {
        input[bit / 8] ^= (unsigned char)(1u << bit % 8);
        struct csm_hash changed = csm_hash(key, input, sizeof input);
        CHECK(changed.lo != plain.lo && changed.hi != plain.hi);
        input[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    for (int bit = 0; bit < 128; bit++) {
        key[bit / 64] ^= UINT64_C(1) << bit % 64;
        struct csm_hash changed = csm_hash(key, input, sizeof input);
        CHECK(changed.lo != plain.lo && changed.hi != plain.hi);
        key[bit / 64] ^= UINT64_C(1) << bit % 64;
    }
    struct csm_hash longer = csm_hash(key, "\0\0", 2), shorter = csm_hash(key, "\0", 1);
    CHECK(longer.lo != shorter.lo);
}

CHECK_MAIN(CHECK_TEST(equals_the_reference_vectors), CHECK_TEST(equals_a_second_implementation),
           CHECK_TEST(every_bit_counts))
