#include "codec/trace.h"

#include "codec/blocks.h"

#include <stdlib.h>

#define POSITIONS (1 << 16) /* that two bytes can spell */

int sgz_codec_trace_new(sgz_trace *t, const sgz_isal *isal)
{
    memset(t, 0, sizeof *t);
    for (int k = 0; k < 2; k++) {
        t->made[k] = malloc(SGZ_HISTORY_MAX);
        t->state[k] = aligned_alloc(64, (sizeof *t->state[k] + 63) / 64 * 64);
        if (!t->made[k] || !t->state[k])
            return 0;
        isal->inflate_init(t->state[k]);
    }
    return (t->needed = malloc(POSITIONS)) != NULL;
}

void sgz_codec_trace_free(sgz_trace *t)
{
    for (int k = 0; k < 2; k++) {
        free(t->state[k]);
        free(t->made[k]);
    }
    free(t->needed);
    memset(t, 0, sizeof *t);
}

void sgz_codec_trace_begin(sgz_trace *t, const sgz_isal *isal, uint64_t bits, int count,
                           uint32_t history, int64_t at)
{
    for (uint32_t p = 0; p < SGZ_HISTORY_MAX; p++) {
        t->made[0][p] = (uint8_t)p;
        t->made[1][p] = (uint8_t)(p + 1 + (p >> 8));
    }
    for (int k = 0; k < 2; k++) {
        sgz_isal_enter(isal, t->state[k], bits, count, t->made[k] + SGZ_HISTORY_MAX - history,
                       history);
        t->len[k] = 0;
        t->at[k] = at;
        t->done[k] = 0;
    }
}

static void feed(sgz_trace *t, int k, const sgz_isal *isal, const uint8_t *in, size_t len,
                 int64_t start)
{
    sgz_isal_inflate_state *state = t->state[k];
    while (!t->done[k] && t->at[k] >= start) {
        uint64_t passed = (uint64_t)(t->at[k] - start);
        size_t left = passed < len ? len - (size_t)passed : 0;
        if (!left)
            return;
        uint32_t given = left < UINT32_MAX / 2 ? (uint32_t)left : UINT32_MAX / 2;
        state->next_in = (uint8_t *)in + passed;
        state->avail_in = given;
        state->next_out = t->made[k] + t->len[k];
        state->avail_out = SGZ_HISTORY_MAX - t->len[k];
        int code = isal->inflate(state);
        if (code >= 0)
            t->len[k] = (uint32_t)(state->next_out - t->made[k]);
        /* Who decodes all of it will come to the same error, and tell it. */
        t->done[k] = code < 0 || t->len[k] == SGZ_HISTORY_MAX ||
                     state->block_state == SGZ_ISAL_BLOCK_FINISH;
        if (state->avail_in >= given) /* at the end more than was given now may come back */
            return;
        t->at[k] += given - state->avail_in;
    }
}

void sgz_codec_trace_feed(sgz_trace *t, const sgz_isal *isal, const uint8_t *in, size_t len,
                          int64_t start)
{
    for (int k = 0; k < 2; k++)
        feed(t, k, isal, in, len, start);
}

/* Equal bytes spell a position from 0xff00 on, which no history has: so none is asked about. */
uint32_t sgz_codec_trace_needs(sgz_trace *t, uint32_t history)
{
    uint32_t len = t->len[0] < t->len[1] ? t->len[0] : t->len[1], needs = 0;
    memset(t->needed, 0, POSITIONS);
    for (uint32_t i = 0; i < len; i++) {
        uint8_t a = t->made[0][i], b = t->made[1][i];
        t->needed[a | (uint32_t)(uint8_t)(b - a - 1) << 8] = 1;
    }
    for (uint32_t p = SGZ_HISTORY_MAX - history; p < SGZ_HISTORY_MAX; p++)
        needs += t->needed[p];
    return needs;
}
