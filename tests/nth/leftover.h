/* What is left of a secret in this process's memory. */
#ifndef BK_TESTS_NTH_LEFTOVER_H
#define BK_TESTS_NTH_LEFTOVER_H

/* How often the bytes of the file path (8 to 64, but one newline at their end) are in memory that can be written, freed
 * memory included; -1 if it could not be found out. */
long nth_leftover(const char *path);

#endif
