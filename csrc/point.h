/* point.h: places with a name, at which a test kills or stops a process. In a build without CSM_CRASH_POINTS, which is every build but
 * that of tests/crash/test_points_*.c, they are nothing. */
#ifndef CSM_POINT_H
#define CSM_POINT_H

#ifdef CSM_CRASH_POINTS
void csm_crash_point(const char *name); /* the test defines it */
#define CSM_CRASH_POINT(name) csm_crash_point(name)
#else
#define CSM_CRASH_POINT(name) ((void)0)
#endif

#endif
