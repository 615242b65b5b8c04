/* Growing arrays: a pointer, a count and a capacity, which are fields of whatever has one.
 *
 * Both return 1, or 0 when there is no memory: then the array is as it was. */
#ifndef SGZ_BASE_VEC_H
#define SGZ_BASE_VEC_H

#include <stddef.h>
#include <stdlib.h>

/* Room for `need` items: exactly that much at first, then at least twice what there was. (Large
 * blocks grow by mremap: nothing is copied, nothing untouched is resident.) */
#define SGZ_FIT(array, cap, need) sgz_vec_fit(&(array), &(cap), (need), sizeof *(array))

/* Append an item. */
#define SGZ_PUSH(array, count, cap, ...)                                                        \
    (SGZ_FIT(array, cap, (size_t)(count) + 1) ? ((array)[(count)++] = (__VA_ARGS__), 1) : 0)

int sgz_base_vec_grow(void *array, size_t *cap, size_t need, size_t size);

/* `array` points to the pointer. */
static inline int sgz_vec_fit(void *array, size_t *cap, size_t need, size_t size)
{
    return need <= *cap || sgz_base_vec_grow(array, cap, need, size);
}

#endif
