/* The clock of profiled builds. */
#define _POSIX_C_SOURCE 200112L
#include <time.h>

static inline unsigned long long nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1000000000ull * (unsigned long long)now.tv_sec + (unsigned long long)now.tv_nsec;
}
