# The C library's allocator, told to keep what a worker will need again a moment later.
#
# What a slow peer does not take at once is copied, up to a read (256 KiB) and the limit of the buffer at a time, and freed as
# soon as it has left. With glibc's defaults memory of that size goes back to the kernel and comes again, page by page and
# zeroed. Other C libraries are left alone.
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
