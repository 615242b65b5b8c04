#include "extract/plan.h"

#include <stdlib.h>
#include <string.h>

int sgz_extract_plan_grow(void *array, uint32_t count, uint32_t *cap, size_t size)
{
    if (count < *cap)
        return 1;
    if (*cap > UINT32_MAX / 2)
        return 0;
    uint32_t more = *cap ? *cap * 2 : 64;
    void *grown = realloc(*(void **)array, more * size);
    if (!grown)
        return 0;
    *(void **)array = grown;
    *cap = more;
    return 1;
}

/* --- selection ------------------------------------------------------------------------ */

void sgz_extract_plan_free(sgz_extract_plan *plan)
{
    sgz_read_spans_free(&plan->spans);
    free(plan->nodes);
    free(plan->slots);
    free(plan->objects);
    free(plan->object_of);
    free(plan->links);
    free(plan->order);
    free(plan->batches);
    free(plan->stages);
    memset(plan, 0, sizeof *plan);
}
