/*
 * For the analyzers of clang and gcc only, included before everything else (tests/lint.sh): they see one file at a
 * time, and so cannot know that bk_fail and its sisters return the code that they are given, and never BK_OK.
 */
#ifndef BK_TESTS_LINT_ANALYZER_H
#define BK_TESTS_LINT_ANALYZER_H

#include "base/err.h"

#define bk_fail(err, code, ...)           ((void)!(bk_fail)(err, code, __VA_ARGS__), (code))
#define bk_fail_errno(err, os_errno, ...) ((void)!(bk_fail_errno)(err, os_errno, __VA_ARGS__), BK_E_IO)
#define bk_fail_nomem(err)                ((void)!(bk_fail_nomem)(err), BK_E_NO_ROOM)

#endif
