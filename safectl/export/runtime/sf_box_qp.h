/* A box-constrained quadratic program by a fixed number of ADMM iterations. */
#ifndef SF_BOX_QP_H
#define SF_BOX_QP_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const float *weight; /* rho (H + rho I)^-1 as `sf_dense` reads it, size x size floats */
    const float *low;
    const float *high;
    size_t size;
    size_t iterations;
} sf_box_problem;

/* Writes the last iterate within the limits, from a start at zero. centre: -(H + rho I)^-1 q.
 * work: 3 size floats. No argument overlaps an output. */
void sf_box_qp(float *z, float *work, const float *centre, const sf_box_problem *problem);

#ifdef __cplusplus
}
#endif

#endif
