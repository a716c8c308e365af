#include "pkcs11/text.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

void
p11_text_field(char *out, size_t room, const void *field, size_t len)
{
    const uint8_t *in = field;
    size_t n = 0;

    while (len > 0 && (in[len - 1] == ' ' || in[len - 1] == '\0'))
        len--;
    for (; n < len && n + 1 < room; n++) {
        /* C0, DEL, and C1 in its UTF-8 form (C2 80 to C2 9F) */
        int control = in[n] < 0x20 || in[n] == 0x7f || (n > 0 && in[n - 1] == 0xc2 && in[n] < 0xa0);

        out[n] = control ? '?' : (char)in[n];
    }
    out[n] = '\0';
}

void
p11_text_list_add(struct p11_text_list *list, const char *name)
{
    size_t len = strlen(name);
    /* room for the words that end a list which was cut */
    size_t room = sizeof list->text - 48;

    list->count++;
    if (list->left_out > 0 || list->used + len + 2 > room) {
        list->left_out++;
        return;
    }
    list->used +=
        (size_t)snprintf(list->text + list->used, room - list->used + 1, "%s%s", list->used > 0 ? ", " : "", name);
}

const char *
p11_text_list_end(struct p11_text_list *list)
{
    if (list->count == 0)
        return "none";
    if (list->left_out > 0)
        (void)snprintf(list->text + list->used, sizeof list->text - list->used, " and %zu more", list->left_out);
    list->left_out = 0;
    return list->text;
}
