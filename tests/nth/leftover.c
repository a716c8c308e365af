#include "tests/nth/leftover.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/nth/nth.h"

#define LONGEST 64
#define HUGE    (256ul << 20) /* larger mappings are the shadow of AddressSanitizer */

static uint8_t needle[LONGEST];
static size_t needle_len;

/* By system calls, which are not made to fail. */
static int
read_needle(const char *path)
{
    long fd = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    long n = fd < 0 ? -1 : syscall(SYS_read, (int)fd, needle, sizeof needle);

    if (fd >= 0)
        (void)syscall(SYS_close, (int)fd);
    needle_len = n < 0 ? 0 : (size_t)n;
    if (needle_len > 0 && needle[needle_len - 1] == '\n')
        needle_len--;
    return needle_len >= 8;
}

/* Freed memory is read too: that is where a secret is left. */
__attribute__((no_sanitize("address", "undefined"))) static long
count_in(const uint8_t *at, const uint8_t *end)
{
    long found = 0;

    for (; (size_t)(end - at) >= needle_len; at++) {
        size_t i = 0;

        if (*at != needle[0] || at == needle)
            continue;
        while (i < needle_len && at[i] == needle[i])
            i++;
        found += i == needle_len;
    }
    return found;
}

long
nth_leftover(const char *path)
{
    char line[512];
    FILE *maps;
    long found = 0;

    if (!read_needle(path))
        return -1;
    maps = fopen("/proc/self/maps", "re");
    if (maps == NULL)
        return -1;
    while (fgets(line, sizeof line, maps) != NULL) {
        uintptr_t start, end;

        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " rw", &start, &end) == 2 && strstr(line, " rw") != NULL &&
            end - start <= HUGE)
            found += count_in((const uint8_t *)start, (const uint8_t *)end);
    }
    (void)fclose(maps);
    return found;
}

void
nth_report_end(const char *word)
{
    const char *path = getenv("BK_NTH_SECRET");
    char line[128];

    (void)snprintf(line, sizeof line, "%s %lu %ld %zu %ld", word, nth_seen(), nth_sessions(), nth_secrets(),
                   path == NULL ? -1 : nth_leftover(path));
    nth_report(line);
}
