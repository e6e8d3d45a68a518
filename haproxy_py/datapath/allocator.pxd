# The C library's allocator, told to keep what a worker will need again a moment later.
#
# libuv reads up to 256,000 octets at once, and each such piece is an object that is freed as soon as it was written. With
# glibc's defaults that memory goes back to the kernel and comes again, page by page and zeroed, for every piece: 92 page
# faults for an upload of 1 MiB. Other C libraries are left alone.
cdef extern from *:
    """
    #include <stdlib.h>
    #ifdef __GLIBC__
    #include <malloc.h>
    #endif
    static void keep_freed_memory(void) {
    #ifdef __GLIBC__
        mallopt(M_MMAP_THRESHOLD, 1 << 20);
        mallopt(M_TRIM_THRESHOLD, 4 << 20);
    #endif
    }
    """
    void keep_freed_memory() noexcept
