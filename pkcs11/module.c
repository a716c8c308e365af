#include "pkcs11/module.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <p11-kit/p11-kit.h>

#include "pkcs11/left_out.h"
#include "pkcs11/rv.h"
#include "pkcs11/text.h"

/* Takes name, file and path over, also on failure. */
static enum bk_code
module_add(struct p11 *p, CK_FUNCTION_LIST *list, char *name, char *file, char *path, struct p11_module **out,
           struct bk_err *err)
{
    struct p11_module *m = calloc(1, sizeof *m);
    char shown[128];

    if (m == NULL || name == NULL) {
        free(m);
        free(name);
        free(file);
        free(path);
        return bk_fail_nomem(err);
    }
    p11_text_field(shown, sizeof shown, name, strlen(name));
    (void)snprintf(m->where, sizeof m->where, "module '%s'", shown);
    m->name = name;
    m->file = file;
    m->path = path;
    m->only = p->only != NULL;
    m->port = (struct p11_port){.list = list, .hook = &p->hook, .where = m->where};
    m->next = p->modules;
    p->modules = m;
    *out = m;
    return BK_OK;
}

static CK_RV
module_initialize(struct p11_module *m)
{
    /* not a C_* call of ours, but the hook shall see it */
    if (!p11_call_admit(&m->port, "C_Initialize"))
        return m->port.rv;
    return p11_call_done(&m->port, p11_kit_module_initialize(m->port.list));
}

static int
has_option(CK_FUNCTION_LIST *list, const char *option, const char *wanted)
{
    char *value = p11_kit_config_option(list, option);
    int yes = value != NULL && (wanted == NULL || strcmp(value, wanted) == 0);

    free(value);
    return yes;
}

/* p11-kit's own store of certificate authorities holds no keys: asking it costs time and yields strangers. */
static int
is_trust_store(CK_FUNCTION_LIST *list)
{
    return has_option(list, "trust-policy", "yes");
}

static enum bk_code
add_configured(struct p11 *p, CK_FUNCTION_LIST *list, struct bk_err *err)
{
    char *name = p11_kit_module_get_name(list);
    char *file = p11_kit_module_get_filename(list);
    char text[P11_RV_TEXT];
    struct p11_module *m = NULL;
    enum bk_code rc;

    if (name == NULL)
        name = strdup(file != NULL ? file : "unnamed");
    if ((rc = module_add(p, list, name, file, NULL, &m, err)) != BK_OK)
        return rc;
    if (is_trust_store(list))
        return BK_OK;
    if (module_initialize(m) != CKR_OK)
        p11_left_out_add(p, "PKCS#11 %s is configured but does not start: C_Initialize: %s; its tokens are not seen",
                         m->where, p11_rv_name(m->port.rv, text));
    else
        m->usable = 1;
    return BK_OK;
}

/* dlopen's them; none is initialised yet. */
static enum bk_code
load_files(struct p11 *p, struct bk_err *err)
{
    const char *message;

    if (p->configured != NULL)
        return BK_OK;
    p->configured = p11_kit_modules_load(NULL, 0);
    message = p11_kit_message();
    if (p->configured == NULL)
        return bk_fail(err, BK_E_TOKEN, "p11-kit cannot load its configured modules: %s",
                       message != NULL ? message : "no reason given");
    /* p11-kit skips modules that it cannot load and keeps only the last reason; its library has no call that tells the
     * others, its own program prints them all */
    if (message != NULL)
        p11_left_out_add(p,
                         "a PKCS#11 module that p11-kit has configured was left out, perhaps others too (p11-kit "
                         "list-modules -v names all): %s",
                         message);
    return BK_OK;
}

/* The others are other processes' business: what can be unloaded cannot harm. */
static void
keep_only(struct p11 *p, const char *name)
{
    size_t kept = 0;

    for (size_t i = 0; p->configured[i] != NULL; i++) {
        char *own = p11_kit_module_get_name(p->configured[i]);

        if (own != NULL && strcmp(own, name) == 0)
            p->configured[kept++] = p->configured[i];
        else
            p11_kit_module_release(p->configured[i]);
        free(own);
    }
    p->configured[kept] = NULL;
}

static enum bk_code
load_configured(struct p11 *p, struct bk_err *err)
{
    enum bk_code rc;

    if (p->configured_loaded)
        return BK_OK;
    if ((rc = load_files(p, err)) != BK_OK)
        return rc;
    p->configured_loaded = 1;
    if (p->only != NULL)
        keep_only(p, p->only);
    for (size_t i = 0; rc == BK_OK && p->configured[i] != NULL; i++)
        rc = add_configured(p, p->configured[i], err);
    return rc;
}

enum bk_code
p11_modules_configured(struct p11 *p, void (*each)(void *ctx, const struct p11_configured *module), void *ctx,
                       struct bk_err *err)
{
    enum bk_code rc = load_files(p, err);

    for (size_t i = 0; rc == BK_OK && p->configured[i] != NULL; i++) {
        CK_FUNCTION_LIST *list = p->configured[i];
        char *name = p11_kit_module_get_name(list);
        char *file = p11_kit_module_get_filename(list);
        const struct p11_configured module = {
            .name = name,
            .file = file,
            .plain = file != NULL && !has_option(list, "x-init-reserved", NULL) && !has_option(list, "remote", NULL),
        };

        if (name != NULL && !is_trust_store(list))
            each(ctx, &module);
        free(file);
        free(name);
    }
    return rc;
}

static enum bk_code
fail_load(const char *path, struct bk_err *err)
{
    const char *message = p11_kit_message();

    if (path[0] == '/' && access(path, F_OK) != 0 && errno == ENOENT)
        return bk_fail(err, BK_E_TOKEN, "there is no PKCS#11 module at %s (module-path)", path);
    return bk_fail(err, BK_E_TOKEN, "the PKCS#11 module of module-path cannot be loaded: %s",
                   message != NULL ? message : path);
}

/* p11-kit parses module-path and does nothing with it. A relative one is looked up in p11-kit's folder of modules,
 * never in the working folder. */
static enum bk_code
load_path(struct p11 *p, const char *path, const char *name, struct bk_err *err)
{
    struct p11_module *m = NULL;
    CK_FUNCTION_LIST *list;
    enum bk_code rc;

    for (m = p->modules; m != NULL; m = m->next)
        if (m->path != NULL && strcmp(m->path, path) == 0)
            break;
    if (m == NULL) {
        list = p11_kit_module_load(path, 0);
        if (list == NULL)
            return fail_load(path, err);
        rc = module_add(p, list, strdup(name), NULL, strdup(path), &m, err);
        if (rc != BK_OK) {
            p11_kit_module_release(list);
            return rc;
        }
        m->usable = module_initialize(m) == CKR_OK;
    }
    return m->usable ? BK_OK : p11_call_fail_as(&m->port, BK_E_TOKEN, err, "the module does not start");
}

enum bk_code
p11_module_only(struct p11 *p, const char *name, const char *file, struct bk_err *err)
{
    if (p->only != NULL)
        return bk_fail(err, BK_E_INTERNAL, "the module is chosen already");
    if ((p->only = strdup(name)) == NULL || (file != NULL && (p->only_file = strdup(file)) == NULL))
        return bk_fail_nomem(err);
    return BK_OK;
}

enum bk_code
p11_modules_load(struct p11 *p, const struct p11_uri *uri, struct bk_err *err)
{
    if (p->only != NULL)
        return p->only_file != NULL ? load_path(p, p->only_file, p->only, err) : load_configured(p, err);
    if (uri->module_path != NULL)
        return load_path(p, uri->module_path, uri->module_path, err);
    return load_configured(p, err);
}

static int
info_matches(const struct p11_module *m, const struct p11_uri *uri)
{
    struct p11_port port = m->port;
    CK_INFO info = {0};

    return P11_CALL(&port, C_GetInfo, &info) == CKR_OK && p11_kit_uri_match_module_info(uri->kit, &info) == 1;
}

int
p11_module_matches(const struct p11_module *m, const struct p11_uri *uri)
{
    if (!m->usable)
        return 0;
    if (m->only)
        return info_matches(m, uri);
    if (uri->module_path != NULL)
        return m->path != NULL && strcmp(m->path, uri->module_path) == 0 && info_matches(m, uri);
    if (m->path != NULL || !p11_uri_names_module(uri, m->name, m->file))
        return 0;
    return info_matches(m, uri);
}

static void
module_finalize(struct p11_module *m)
{
    (void)p11_call_admit(&m->port, "C_Finalize");
    (void)p11_call_done(&m->port, p11_kit_module_finalize(m->port.list));
}

void
p11_module_restart(struct p11_module *m)
{
    if (!m->usable || atomic_load(&m->sessions) > 0)
        return;
    module_finalize(m);
    m->usable = module_initialize(m) == CKR_OK;
}

void
p11_modules_free(struct p11 *p)
{
    while (p->modules != NULL) {
        struct p11_module *m = p->modules;

        p->modules = m->next;
        if (m->usable)
            module_finalize(m);
        if (m->path != NULL)
            p11_kit_module_release(m->port.list);
        free(m->name);
        free(m->file);
        free(m->path);
        free(m);
    }
    if (p->configured != NULL)
        p11_kit_modules_release(p->configured);
    p->configured = NULL;
    p->configured_loaded = 0;
}
