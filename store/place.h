/* Whether two paths mean one file, however they are spelt. */
#ifndef BK_STORE_PLACE_H
#define BK_STORE_PLACE_H

#include <sys/types.h>

/* What a path meant when it was asked. */
struct store_place {
    dev_t folder_device;
    ino_t folder;     /* where the name stands; 0 if there is no such folder, and then name is the whole path */
    const char *name; /* the end of the path; a symbolic link is a name of its own, since publishing replaces it */
    dev_t device;
    ino_t file; /* what the name leads to; 0 if there is nothing */
};

/* path stays with the caller, as long as *out is used. */
void store_place_of(const char *path, struct store_place *out);

/* Less than, equal to, or greater than 0, for trees: 0 if they are one name in one folder. */
int store_place_order(const struct store_place *a, const struct store_place *b);

/* 1 if they are one name in one folder, or lead to one file. */
int store_place_same(const struct store_place *a, const struct store_place *b);

#endif
