/*
 * The log: a line for each thing that a test wants to know, "PID WHAT", appended whole, so that processes may share it:
 *
 *     start                                     a process loaded the module
 *     login begins, login rv=0x0                C_Login, and how it ended; a crash or a hang leaves the first one alone
 *     logout open=1                             so many sessions are open at C_Logout
 *     fault C_Sign 12                           a fault was met, at that call of all
 *     finalize|exit open=0 private=1 C_Sign=1…  what the process did until then
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/mimic/mimic.h"

void
mimic_log(const char *fmt, ...)
{
    char line[2048];
    int used = snprintf(line, sizeof line, "%ld ", (long)getpid());
    va_list args;
    int fd;

    if (mimic.config.log[0] == '\0' ||
        (fd = open(mimic.config.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) < 0)
        return;
    va_start(args, fmt);
    used += vsnprintf(line + used, sizeof line - (size_t)used, fmt, args);
    va_end(args);
    if (used > (int)sizeof line - 2)
        used = (int)sizeof line - 2;
    line[used++] = '\n';
    (void)!write(fd, line, (size_t)used);
    (void)close(fd);
}

void
mimic_log_counts(const char *when)
{
    static const enum mimic_call private[] = {MIMIC_C_Sign, MIMIC_C_Decrypt, MIMIC_C_UnwrapKey, MIMIC_C_DeriveKey};
    char text[1800] = "";
    size_t used = 0;
    unsigned long sum = 0;

    for (size_t i = 0; i < sizeof private / sizeof private[0]; i++)
        sum += atomic_load(&mimic.counts.of[private[i]]);
    for (size_t i = 0; i < MIMIC_CALLS && used < sizeof text - 64; i++) {
        unsigned long count = atomic_load(&mimic.counts.of[i]);

        if (count > 0)
            used += (size_t)snprintf(text + used, sizeof text - used, " %s=%lu", mimic_call_names[i], count);
    }
    mimic_log("%s open=%ld private=%lu%s", when, atomic_load(&mimic.open), sum, text);
}
