/* Makes wrk do a full TLS handshake on every connection; loaded into it with LD_PRELOAD.
 *
 * wrk prepares a connection for its next use with SSL_clear, which keeps the session, so OpenSSL would resume it. Here the
 * session is forgotten first. At the end the number of forgotten sessions goes to standard error: if it is missing, wrk was
 * built with an OpenSSL of its own, out of reach, and the figures mean nothing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>

typedef struct ssl_st SSL;
typedef struct ssl_session_st SSL_SESSION;

extern int SSL_set_session(SSL *ssl, SSL_SESSION *session);

static long forgotten;

int SSL_clear(SSL *ssl) {
    static int (*original)(SSL *);
    if (!original) original = (int (*)(SSL *))dlsym(RTLD_NEXT, "SSL_clear");
    SSL_set_session(ssl, NULL);
    forgotten++;
    return original(ssl);
}

__attribute__((destructor)) static void tell(void) {
    fprintf(stderr, "FORGOTTEN %ld\n", forgotten);
}
