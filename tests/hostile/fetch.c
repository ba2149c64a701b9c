/* fetch.c: words that change between one look and the next.
 *
 * A word of shared memory that was checked and is then loaded once more may be another by then. To hit that moment from another thread
 * takes luck; here the compiler calls before each load of the core (-fsanitize-coverage=trace-loads, clang only), and now and
 * then the word is changed right there. It may change back at the next load: what was wrong for one look only is what a check misses. */
#include "fetch.h"

static _Thread_local struct {
    const struct life *l;
    unsigned char *base;
    struct feed *feed;
    uint64_t odds;
    uint64_t changed_at, was; /* 0: nothing to change back (that would be the magic number) */
} armed;

uint64_t fetch_loads;

void fetch_arm(const struct life *l, unsigned char *base, struct feed *feed) {
    armed.l = l;
    armed.base = base;
    armed.feed = feed;
    armed.odds = UINT64_C(1) << feed_below(feed, 11);
    armed.changed_at = 0;
}

void fetch_disarm(void) { armed.base = NULL; }

static void before_load(const void *address) {
    if (!armed.base) return;
    uint64_t at = (uint64_t)((uintptr_t)address - (uintptr_t)armed.base);
    if (at >= armed.l->of_a.geo.mapped_bytes) return;
    at = at / 8 * 8;
    fetch_loads++;
    if (armed.changed_at && armed.changed_at != at) {
        csm_store((uint64_t *)(void *)(armed.base + armed.changed_at), armed.was);
        armed.changed_at = 0;
    }
    if (feed_below(armed.feed, armed.odds) != 0) return;
    uint64_t was;
    if (damage_word(armed.l, armed.base, at, armed.feed, &was) && feed_below(armed.feed, 4)) {
        armed.changed_at = at;
        armed.was = was;
    }
}

/* What the compiler calls. */
void __sanitizer_cov_load1(uint8_t *address);
void __sanitizer_cov_load2(uint16_t *address);
void __sanitizer_cov_load4(uint32_t *address);
void __sanitizer_cov_load8(uint64_t *address);
void __sanitizer_cov_load16(__uint128_t *address);

void __sanitizer_cov_load1(uint8_t *address) { before_load(address); }
void __sanitizer_cov_load2(uint16_t *address) { before_load(address); }
void __sanitizer_cov_load4(uint32_t *address) { before_load(address); }
void __sanitizer_cov_load8(uint64_t *address) { before_load(address); }
void __sanitizer_cov_load16(__uint128_t *address) { before_load(address); }
