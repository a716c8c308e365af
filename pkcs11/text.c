#include "pkcs11/text.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

void
p11_text_field(char *out, size_t room, const void *field, size_t len)
{
    const uint8_t *in = field;

    while (len > 0 && (in[len - 1] == ' ' || in[len - 1] == '\0'))
        len--;
    (void)bk_text_plain(out, room, in, len);
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
