/* atomic.h: the few atomic operations the core uses, on plain integers in shared memory.
 *
 * In words:
 *   acquire load   nothing after it (in program order) is done before it. Who sees the value also sees
 *                  everything the release store that wrote it was preceded by.
 *   release store  nothing before it is done after it.
 *   relaxed        only "no torn and no invented values"; used where a lock or a later check orders.
 *   seq_cst RMW    additionally takes part in one total order: needed where two sides each store, then
 *                  look at what the other stored (pin against reset).
 *   fences         the same promises, detached from one particular word: used around bulk copies, which
 *                  cannot be atomic themselves.
 *
 * x86-64 gives acquire and release for free; AArch64 does not, so the weaker orders below are load-bearing.
 */
#ifndef CSM_ATOMIC_H
#define CSM_ATOMIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define csm_load(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define csm_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define csm_load_seq(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
#define csm_store(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define csm_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define csm_store_seq(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
#define csm_add(p, n) __atomic_fetch_add((p), (n), __ATOMIC_RELAXED)
#define csm_add_seq(p, n) __atomic_fetch_add((p), (n), __ATOMIC_SEQ_CST)
#define csm_sub_release(p, n) __atomic_fetch_sub((p), (n), __ATOMIC_RELEASE)
#define csm_sub_acq_rel(p, n) __atomic_fetch_sub((p), (n), __ATOMIC_ACQ_REL)

#if defined(__SANITIZE_THREAD__)
#define CSM_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CSM_TSAN 1
#endif
#endif

#ifdef CSM_TSAN
/* ThreadSanitizer does not model fences. Every protocol that rests on one re-checks an atomic word right after
 * it, so for the tool each fence becomes nothing and the racing bulk copies (csm_copy_racy) are left out of its
 * sight; all other accesses stay under its eye. */
#define csm_fence_acquire() ((void)0)
#define csm_fence_release() ((void)0)
#define csm_fence_seq() ((void)0)
#else
#define csm_fence_acquire() __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define csm_fence_release() __atomic_thread_fence(__ATOMIC_RELEASE)
#define csm_fence_seq() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#endif

/* Returns true when *p was `expected` and is now `desired`. Acquire on success: what the previous holder of
 * the word did before its release is visible. */
static inline bool csm_swap_if(uint64_t *p, uint64_t expected, uint64_t desired) {
    return __atomic_compare_exchange_n(p, &expected, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

/* *p = max(*p, v) */
static inline void csm_raise(uint64_t *p, uint64_t v) {
    uint64_t seen = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (seen < v &&
           !__atomic_compare_exchange_n(p, &seen, v, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
    }
}

/* Bulk accesses that may race with a writer of a later generation. The bytes are used only after the
 * generation was found unchanged behind an acquire fence; a torn read is thrown away. */
#ifdef CSM_TSAN
__attribute__((no_sanitize("thread"), noinline, unused)) static void csm_copy_racy(void *to, const void *from,
                                                                                   size_t n) {
    unsigned char *t = to;
    const volatile unsigned char *f = from;
    for (size_t i = 0; i < n; i++) t[i] = f[i];
}
__attribute__((no_sanitize("thread"), noinline, unused)) static bool csm_equal_racy(const void *a, const void *b,
                                                                                    size_t n) {
    const volatile unsigned char *x = a, *y = b;
    for (size_t i = 0; i < n; i++)
        if (x[i] != y[i]) return false;
    return true;
}
__attribute__((no_sanitize("thread"), noinline, unused)) static void csm_fill_racy(void *to, const void *from,
                                                                                   size_t n) {
    volatile unsigned char *t = to;
    const unsigned char *f = from;
    for (size_t i = 0; i < n; i++) t[i] = f[i];
}
#else
static inline void csm_copy_racy(void *to, const void *from, size_t n) { memcpy(to, from, n); }
static inline bool csm_equal_racy(const void *a, const void *b, size_t n) { return memcmp(a, b, n) == 0; }
static inline void csm_fill_racy(void *to, const void *from, size_t n) { memcpy(to, from, n); }
#endif

static inline void csm_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

#endif
