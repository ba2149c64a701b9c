/* test_digest.c holds digest.c to: it is what Python's hashlib.blake2s(data, digest_size=24) says, at all lengths that end a block
 * differently, and wherever the bytes lie. The sidecar compares what C and Python say. */
#include "check.h"

#include "digest.h"

/* Of bytes 1, 8, 15, ... */
static const struct {
    size_t bytes;
    const char *digest;
} KNOWN[] = {
    {0, "a847d26c2f966c5c4cc222b174918a56037cdee34b3f872f"},   {1, "f22bcfbae4924ad3c37fd006e854904e94b27496a45f5128"},
    {3, "f017006602bef13fa1f6508ab9f91fde04a8ee83f7b3bd0b"},   {63, "cc4ee1c64a1f6f3515e29506aa22f6ec9547e9ddd7e6033d"},
    {64, "b1451d230dbbda0bb18979ad38750c1af6777935ff310879"},  {65, "7168d980dea41a919a863b73c225649eaaa7ed12a14ef306"},
    {128, "b6286d5fcb237b68b1fc65ee5387d0e800b7e0e503afee29"}, {129, "38d8742ce53e69374c781d5b71acad539886148179970a94"},
    {255, "54717c4a572657d078f444944ae336ddec5c08c0c8155168"}, {65535, "2365689cf84f243c60077c5a4dcf0fed21e7beb78f0805ee"},
};

static void check_digest(const unsigned char *data, size_t bytes, const char *want) {
    uint64_t words[CSM_DIGEST_WORDS];
    unsigned char digest[sizeof words];
    char text[2 * sizeof digest + 1];
    csm_digest(data, bytes, words);
    memcpy(digest, words, sizeof digest);
    for (size_t i = 0; i < sizeof digest; i++) snprintf(text + 2 * i, 3, "%02x", digest[i]);
    if (strcmp(text, want) != 0) fprintf(stderr, "%zu bytes: %s, not %s\n", bytes, text, want);
    CHECK(strcmp(text, want) == 0);
}

static void it_is_blake2s(void) {
    check_digest((const unsigned char *)"abc", 3, "1e2ed10fcdbc46e0ab3ea3f268a6c288083ae04e3d63a8de");
    static unsigned char data[65535 + 8];
    for (size_t align = 0; align < 8; align++) {
        for (size_t i = 0; i < 65535; i++) data[align + i] = (unsigned char)(i * 7 + 1);
        for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++) check_digest(data + align, KNOWN[i].bytes, KNOWN[i].digest);
    }
}

CHECK_MAIN(CHECK_TEST(it_is_blake2s))
