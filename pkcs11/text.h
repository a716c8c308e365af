/* Text for people from what modules return: fixed fields, labels, and lists of names in one message. */
#ifndef BK_PKCS11_TEXT_H
#define BK_PKCS11_TEXT_H

#include <stddef.h>

/* Trims blanks and NULs at the end of a field and makes the rest plain (bk_text_plain). */
void p11_text_field(char *out, size_t room, const void *field, size_t len);

/* "a, b, c and 4 more". Zero-initialise. */
struct p11_text_list {
    char text[640];
    size_t used;
    size_t left_out;
    size_t count;
};

void p11_text_list_add(struct p11_text_list *list, const char *name);
/* The whole text; "none" for an empty list. */
const char *p11_text_list_end(struct p11_text_list *list);

#endif
