#include <stdlib.h>

#include "pkcs11/left_out.h"
#include "pkcs11/module.h"
#include "pkcs11/token.h"

enum bk_code
p11_open(const struct p11_options *options, struct p11 **out, struct bk_err *err)
{
    struct p11 *p = calloc(1, sizeof *p);

    if (p == NULL || p11_left_out_init(&p->left_out, options->log, err) != BK_OK) {
        free(p);
        return bk_fail_nomem(err);
    }
    if (pthread_mutex_init(&p->lock, NULL) != 0) {
        p11_left_out_free(&p->left_out);
        free(p);
        return bk_fail_nomem(err);
    }
    p->options = *options;
    *out = p;
    return BK_OK;
}

struct p11_left_out *
p11_left_out_of(struct p11 *p)
{
    return &p->left_out;
}

/* In this process nothing can be loaded without waiting for it. */
void
p11_prepare(struct p11 *p, const char *uri)
{
    (void)p;
    (void)uri;
}

void
p11_close(struct p11 *p)
{
    if (p == NULL)
        return;
    p11_tokens_free(p);
    p11_modules_free(p);
    p11_left_out_free(&p->left_out);
    free(p->only);
    free(p->only_file);
    pthread_mutex_destroy(&p->lock);
    free(p);
}
