#include "store/place.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* One that is longer than PATH_MAX cannot be opened, whatever is found here. */
static int
stat_folder(const char *path, size_t len, struct stat *st)
{
    char folder[PATH_MAX];

    (void)snprintf(folder, sizeof folder, "%.*s", len < sizeof folder ? (int)len : 0, path);
    return stat(folder, st);
}

void
store_place_of(const char *path, struct store_place *out)
{
    const char *slash = strrchr(path, '/');
    struct stat st;

    *out = (struct store_place){.name = path};
    if ((slash == NULL ? stat(".", &st) : stat_folder(path, (size_t)(slash - path) + 1, &st)) == 0) {
        out->folder_device = st.st_dev;
        out->folder = st.st_ino;
        out->name = slash == NULL ? path : slash + 1;
    }
    if (stat(path, &st) == 0) {
        out->device = st.st_dev;
        out->file = st.st_ino;
    }
}

int
store_place_order(const struct store_place *a, const struct store_place *b)
{
    if (a->folder_device != b->folder_device)
        return a->folder_device < b->folder_device ? -1 : 1;
    if (a->folder != b->folder)
        return a->folder < b->folder ? -1 : 1;
    return strcmp(a->name, b->name);
}

int
store_place_same(const struct store_place *a, const struct store_place *b)
{
    return store_place_order(a, b) == 0 || (a->file != 0 && a->file == b->file && a->device == b->device);
}
