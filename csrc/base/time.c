#include "base/time.h"

size_t sgz_base_time_format(int64_t seconds, uint32_t nanoseconds, char out[SGZ_TIME_MAX])
{
    int64_t days = seconds / 86400, second = seconds % 86400;
    if (second < 0)
        second += 86400, days--;
    /* Years begin in March, so that the leap day is the last of its year. */
    int64_t from_0000_03 = days + 719468;
    int64_t era = (from_0000_03 >= 0 ? from_0000_03 : from_0000_03 - 146096) / 146097;
    int64_t day = from_0000_03 - era * 146097;
    int64_t year_of_era = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    day -= 365 * year_of_era + year_of_era / 4 - year_of_era / 100;
    int64_t month = (5 * day + 2) / 153;
    day -= (153 * month + 2) / 5 - 1;
    month += month < 10 ? 3 : -9;
    int64_t year = year_of_era + era * 400 + (month <= 2);

    char *p = out, digits[20];
    int count = 0;
    if (year < 0) {
        *p++ = '-';
        year = -year;
    }
    for (; year || count < 4; year /= 10)
        digits[count++] = (char)('0' + year % 10);
    while (count)
        *p++ = digits[--count];
    int64_t parts[] = {month, day, second / 3600, second / 60 % 60, second % 60};
    for (int i = 0; i < 5; i++) {
        *p++ = "--T::"[i];
        *p++ = (char)('0' + parts[i] / 10);
        *p++ = (char)('0' + parts[i] % 10);
    }
    if (nanoseconds)
        *p++ = '.';
    for (uint32_t unit = 100000000; nanoseconds; unit /= 10) {
        *p++ = (char)('0' + nanoseconds / unit);
        nanoseconds %= unit;
    }
    *p++ = 'Z';
    return (size_t)(p - out);
}

static int two_digits(const char *p, int *value)
{
    unsigned tens = (unsigned)(uint8_t)p[0] - '0', ones = (unsigned)(uint8_t)p[1] - '0';
    *value = (int)(tens * 10 + ones);
    return tens < 10 && ones < 10;
}

/* Days from 1970-01-01: as above. */
static int64_t days_from_date(int year, int month, int day)
{
    int64_t y = year - (month <= 2);
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t year_of_era = y - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 +
           day_of_year - 719468;
}

int sgz_base_time_read(const char *p, size_t len, int64_t *seconds, uint32_t *nanoseconds)
{
    static const uint8_t month_days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int century, year, month, day, hour, minute, second, zone_hour = 0, zone_minute = 0;
    if (len < 20)
        return 0;
    const char *end = p + len;
    if (!(two_digits(p, &century) & two_digits(p + 2, &year) & (p[4] == '-') &
          two_digits(p + 5, &month) & (p[7] == '-') & two_digits(p + 8, &day) &
          (p[10] == 'T') & two_digits(p + 11, &hour) & (p[13] == ':') &
          two_digits(p + 14, &minute) & (p[16] == ':') & two_digits(p + 17, &second)))
        return 0;
    year += century * 100;
    int leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (month < 1 || month > 12 || day < 1 ||
        day > month_days[month - 1] + (month == 2 && leap) || hour > 23 || minute > 59 ||
        second > 59)
        return 0;
    p += 19;
    uint32_t fraction = 0;
    if (*p == '.' || *p == ',') {
        const char *digits = ++p;
        for (uint32_t unit = 100000000; p < end && (uint8_t)(*p - '0') < 10; unit /= 10)
            fraction += (uint32_t)(*p++ - '0') * unit;
        if (p == digits || p == end)
            return 0;
    }
    int64_t zone = 0;
    if (*p == 'Z' && p + 1 == end) {
        zone = 0;
    } else if ((*p == '+' || *p == '-') && end - p == 6 && p[3] == ':' &&
               two_digits(p + 1, &zone_hour) && two_digits(p + 4, &zone_minute) &&
               zone_hour <= 24 && zone_minute < 60) {
        zone = (zone_hour * 60 + zone_minute) * 60;
        if (*p == '-')
            zone = -zone;
    } else {
        return 0;
    }
    *seconds = days_from_date(year, month, day) * 86400 + hour * 3600 + minute * 60 + second -
               zone;
    *nanoseconds = fraction;
    return 1;
}
