/* Times as text and back, against the C library's calendar. */
#define _GNU_SOURCE
#include "base/time.h"
#include "check.h"

#include <string.h>
#include <time.h>

static const char *text(int64_t seconds, uint32_t nanoseconds)
{
    static char out[SGZ_TIME_MAX + 1];
    size_t len = sgz_base_time_format(seconds, nanoseconds, out);
    CHECK(len <= SGZ_TIME_MAX);
    out[len] = 0;
    return out;
}

static int reads(const char *from, int64_t expected, uint32_t fraction)
{
    int64_t seconds;
    uint32_t nanoseconds;
    return sgz_base_time_read(from, strlen(from), &seconds, &nanoseconds) &&
           seconds == expected && nanoseconds == fraction;
}

static int refused(const char *from)
{
    int64_t seconds;
    uint32_t nanoseconds;
    return !sgz_base_time_read(from, strlen(from), &seconds, &nanoseconds);
}

int main(void)
{
    CHECK(!strcmp(text(0, 0), "1970-01-01T00:00:00Z"));
    CHECK(!strcmp(text(1700000000, 123450000), "2023-11-14T22:13:20.12345Z"));
    CHECK(!strcmp(text(-6, 500000000), "1969-12-31T23:59:54.5Z"));
    CHECK(!strcmp(text(951782400, 1), "2000-02-29T00:00:00.000000001Z"));
    CHECK(!strcmp(text(-62167219200, 0), "0000-01-01T00:00:00Z"));
    CHECK(!strcmp(text(253402300800, 0), "10000-01-01T00:00:00Z"));
    CHECK(!strcmp(text(-62167219201, 0), "-0001-12-31T23:59:59Z"));
    text(INT64_MAX, 999999999);
    text(INT64_MIN, 999999999);
    for (int i = 0; i < 20000; i++) {
        int64_t seconds = -62167219200 + (int64_t)below(1000000000) * 315;
        uint32_t fraction = below(2) ? below(1000000000) : below(10) * 100000000;
        char expected[64];
        time_t t = (time_t)seconds;
        struct tm tm;
        CHECK(gmtime_r(&t, &tm));
        snprintf(expected, sizeof expected, "%04d-%02d-%02dT%02d:%02d:%02d", tm.tm_year + 1900,
                 tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
        CHECK(!strncmp(text(seconds, fraction), expected, 19));
        CHECK(reads(text(seconds, fraction), seconds, fraction));
    }
    CHECK(reads("2023-11-14T22:13:20.1234567899+02:30", 1700000000 - 9000, 123456789));
    CHECK(reads("2023-11-14T22:13:20-00:01", 1700000060, 0));
    static const char *const bad[] = {
        "", "2023-11-14T22:13:20", "2023-11-14 22:13:20Z", "2023-02-29T22:13:20Z",
        "2023-11-14T24:13:20Z", "2023-11-14T22:13:60Z", "2023-11-14T22:13:20.Z",
        "2023-11-14T22:13:20.5", "2023-11-14T22:13:20+1:00", "2023-11-14T22:13:20Zx",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(refused(bad[i]));
    return 0;
}
