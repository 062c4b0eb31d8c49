/* Exact projection on one half-space and a box. */
#ifndef SF_PROJECT_H
#define SF_PROJECT_H

#include "sf_core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The half-space normal . u >= offset and the box low <= u <= high. Corrections aim at
 * offset + backoff, backoff >= 0; what meets the offset is kept. */
typedef struct {
    const float *normal;
    const float *low;
    const float *high;
    float offset;
    float backoff;
    size_t size;
} sf_region;

/* Finds the action in the region nearest to the proposal and its margin normal . u - offset.
 * SF_KEPT: the proposal, bit for bit. SF_CORRECTED: the margin is >= 0. SF_FALLBACK: the region is
 * empty and the action is the vertex of the box with the largest margin, which is below zero.
 * At most 2 size evaluations of size entries; `action` must not overlap an input. */
sf_status sf_project_halfspace_box(float *action, float *margin, const float *proposal,
                                   const sf_region *region);

#ifdef __cplusplus
}
#endif

#endif
