/* Preloaded into a process: its wall clock is off by the number of seconds in the file that CLOCK_FILE names. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *moment)
{
    static int (*real)(clockid_t, struct timespec *);
    const char *path = getenv("CLOCK_FILE");
    long offset = 0;
    FILE *file;

    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (clock == CLOCK_REALTIME && path && (file = fopen(path, "r"))) {
        if (fscanf(file, "%ld", &offset) != 1)
            offset = 0;
        fclose(file);
    }
    int status = real(clock, moment);
    moment->tv_sec += offset;
    return status;
}
