/* Taking the nearest of several actions that is admissible. */
#ifndef SF_NEAREST_H
#define SF_NEAREST_H

#include "sf_core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A proposal, `count` - 1 further actions of `size` entries, and `rows` constraint values of each,
 * the proposal first. */
typedef struct {
    const float *proposal;
    const float *points;
    const float *room;
    size_t count;
    size_t rows;
    size_t size;
} sf_choices;

/* Writes the nearest action to the proposal whose constraint values are finite and zero or more and
 * that is within the limits; SF_KEPT for the proposal, SF_CORRECTED for another. Where there is
 * none, the one whose smallest value is largest, of equal ones the first further action, with
 * SF_FALLBACK; where nothing is finite, the first further action. */
sf_status sf_nearest_admissible(float *action, float *margin, const sf_choices *choices,
                                const float *low, const float *high);

#ifdef __cplusplus
}
#endif

#endif
