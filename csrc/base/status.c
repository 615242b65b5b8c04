#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void set_name(sgz_error *err, const char *name, size_t name_len)
{
    if (!name)
        name_len = 0;
    if (name_len >= SGZ_NAME_MAX)
        name_len = SGZ_NAME_MAX - 1;
    if (name_len)
        memcpy(err->name, name, name_len);
    err->name[name_len] = '\0';
}

sgz_status sgz_base_fail(sgz_error *err, sgz_status code, int64_t offset, const char *name,
                         size_t name_len, const char *format, ...)
{
    if (!err)
        return code;
    err->code = code;
    err->sys_errno = 0;
    err->offset = offset;
    err->cause = 0;
    set_name(err, name, name_len);
    va_list args;
    va_start(args, format);
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    return code;
}

void sgz_base_name(sgz_error *err, const char *name, size_t name_len)
{
    if (err && !err->name[0])
        set_name(err, name, name_len);
}

sgz_status sgz_base_fail_errno(sgz_error *err, int sys_errno, const char *what, const char *name,
                               size_t name_len)
{
    sgz_base_fail(err, SGZ_EIO, -1, name, name_len, "%s", what);
    if (err)
        err->sys_errno = sys_errno;
    return SGZ_EIO;
}

sgz_status sgz_base_fail_digest(sgz_error *err, int64_t offset, const char *name,
                                size_t name_len, const uint8_t expected[32],
                                const uint8_t actual[32], const char *what)
{
    sgz_base_fail(err, SGZ_EDIGEST, offset, name, name_len, "%s does not match its digest",
                  what);
    if (err) {
        memcpy(err->expected, expected, 32);
        memcpy(err->actual, actual, 32);
    }
    return SGZ_EDIGEST;
}
