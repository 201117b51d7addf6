// For LD_PRELOAD: a client that uses a TLS object once more (wrk, h2load) comes as a new one, without the session of its
// last connection. Both would otherwise resume sessions from their second connection on.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

int SSL_clear(void *ssl)
{
	int (*clear)(void *) = (int (*)(void *))dlsym(RTLD_NEXT, "SSL_clear");
	int (*set_session)(void *, void *) = (int (*)(void *, void *))dlsym(RTLD_NEXT, "SSL_set_session");

	return set_session(ssl, NULL) && clear(ssl);
}
