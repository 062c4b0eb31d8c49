/* Exact projection on several half-spaces and a box. */
#ifndef SF_POLYTOPE_H
#define SF_POLYTOPE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Constraints room + normals (u - point) >= backoff and limits low <= u <= high. */
typedef struct {
    const float *start;   /* what is projected, size floats */
    const float *point;   /* where the constraints are known, size floats */
    const float *room;    /* their values there, rows floats */
    const float *normals; /* their gradients, rows x size floats */
    const float *backoff; /* how far inside corrections aim, rows floats, zero or more */
    const float *low;
    const float *high;
    size_t size;  /* entries of the action */
    size_t rows;  /* constraints, at least one */
    size_t steps; /* bound of the loop */
} sf_polytope;

/* Writes the point of the region nearest to the start, and the corner of the box where that
 * constraint is best which is worst at its best. Where the region is empty, or the bound of the loop
 * is met, the point is the corner. The dual active-set method of Goldfarb and Idnani: at most `steps`
 * steps of about 2 size (rows + 3 size) multiplications.
 * work: size (2 size + 7) + (size + 2) rows floats. No argument overlaps an output. */
void sf_project_polytope_box(float *action, float *corner, float *work, const sf_polytope *problem);

#ifdef __cplusplus
}
#endif

#endif
