/* marks.h: where callgrind begins to count, and where it writes what it has counted, under a name.
 *
 * Without valgrind's header, or outside valgrind, they do nothing. */
#ifdef __has_include
#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#endif
#endif

#ifndef CALLGRIND_ZERO_STATS
#define CALLGRIND_ZERO_STATS ((void)0)
#define CALLGRIND_DUMP_STATS_AT(name) ((void)(name))
#endif
