/* UTF-8 (RFC 3629), and text of unknown origin made fit for a terminal and a log. */
#ifndef BK_BASE_TEXT_H
#define BK_BASE_TEXT_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the UTF-8 character at the start of text, its code point in *point; 0 if it is not one. len is not 0. */
size_t bk_utf8_next(const uint8_t *text, size_t len, uint32_t *point);

/*
 * Copies len bytes with '?' for each byte that is not UTF-8 and each character that steers instead of being shown
 * (controls, line separators, bidirectional overrides): no label and no file name can command a terminal, forge a line
 * of a log, or spoil JSON. out always ends with NUL; what does not fit in room (not 0) is cut between characters.
 * Returns out.
 */
char *bk_text_plain(char *out, size_t room, const void *text, size_t len);

#endif
