/*
 * Profiles: options kept in a file. docs/CLI.md, Profiles. A profile's values go through the same checks as those of a
 * command line (cmd_parse); here they are only found and read.
 */
#ifndef BK_CMD_PROFILE_H
#define BK_CMD_PROFILE_H

#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

/* How an option stands in a profile. */
enum cmd_key {
    CMD_KEY_UNKNOWN, /* no program has it */
    CMD_KEY_REFUSED, /* a program has it, and it belongs on the command line */
    CMD_KEY_FLAG,    /* yes or no */
    CMD_KEY_VALUE,   /* once */
    CMD_KEY_LIST,    /* a value each time */
    CMD_KEY_MAYBE,   /* yes, no or a value */
};

enum cmd_key cmd_profile_key(const char *name);

struct cmd_profile_entry {
    char *key; /* a long option's name, without its dashes */
    char *value;
    unsigned line;
};

/* Owns all that it points to. Zero-initialise. */
struct cmd_profile {
    char *path;
    struct cmd_profile_entry *entries; /* in the file's order */
    size_t count;
};
void cmd_profile_free(struct cmd_profile *p);

/* The entries of profile name in the text of a file, which path names in messages. BK_E_USAGE names file and line. */
BK_MUST_USE enum bk_code cmd_profile_parse(const char *path, const char *text, size_t len, const char *name,
                                           struct cmd_profile *out, struct bk_err *err);

/* config, or the first that there is of $BK_CONFIG, the user's and the system's. Allocated. */
BK_MUST_USE enum bk_code cmd_config_path(const char *config, char **out, struct bk_err *err);

/* BK_E_USAGE if somebody other than root and owner could change what stands under this path: a folder on the way to
 * it, as named or behind symbolic links, is another user's, or others can write into it (unless it is sticky). The file
 * itself is not looked at. */
BK_MUST_USE enum bk_code cmd_config_check_folders(const char *path, uid_t owner, struct bk_err *err);

/* Reads a file that configures, of at most size - 1 bytes. BK_E_USAGE if it cannot be read, is longer, or somebody
 * other than root and this user could have written it. */
BK_MUST_USE enum bk_code cmd_config_read(const char *path, char *room, size_t size, size_t *len, struct bk_err *err);

/* Finds the file, checks that nobody else can write it, since it can name commands and whom to trust, and reads the
 * profile. */
BK_MUST_USE enum bk_code cmd_profile_read(const char *config, const char *name, struct cmd_profile *out,
                                          struct bk_err *err);

#endif
