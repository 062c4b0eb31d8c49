/* First and second tangents through a small network; formulas in safectl/planners/forward_model.py.
 * Every entry of a value has a row of `count` tangents, one per direction. Second tangents come in
 * pairs: directions h and g <= h are column h (h + 1) / 2 + g. No output overlaps an input. */
#ifndef SF_TANGENT_H
#define SF_TANGENT_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Weights are row after row, one row per output, `columns` long; `weight` points at the first column
 * that is used.
 * y = start + W x for `inputs` columns, summed in this order; start may be y. */
void sf_rows_value(float *y, const float *x, const float *weight, const float *start,
                   size_t columns, size_t inputs, size_t outputs);

/* The same for tangents, x: inputs x count, y: outputs x count, starting at y or, if `is_new`, zero. */
void sf_rows_tangent(float *y, const float *x, const float *weight, int is_new, size_t columns,
                     size_t inputs, size_t outputs, size_t count);

/* The same for x that is a decision itself: y[i][h] += W[i][h] for `inputs` directions h. */
void sf_rows_input(float *y, const float *weight, size_t columns, size_t inputs, size_t outputs,
                   size_t count);

/* phi' and phi'' of outputs a = phi(z). That of relu is zero for a <= 0; it has no phi''. */
void sf_slope_relu(float *slope, const float *a, size_t size);
void sf_slope_tanh(float *slope, const float *a, size_t size);
void sf_slope_sigmoid(float *slope, const float *a, size_t size);
void sf_bend_relu(float *bend, const float *a, const float *slope, size_t size);
void sf_bend_tanh(float *bend, const float *a, const float *slope, size_t size);
void sf_bend_sigmoid(float *bend, const float *a, const float *slope, size_t size);

/* second = slope second + bend first first', in place, with the first tangents before phi. */
void sf_tangent_bend(float *second, const float *first, const float *slope, const float *bend,
                     size_t size, size_t count);

/* first = slope first, in place. */
void sf_tangent_scale(float *first, const float *slope, size_t size, size_t count);

/* One step of n gated units from a zero state, on entries z (n), r (n) and c (n).
 * Reset: c += r bias. It is linear, so values (count 1) and tangents of any order go through it. */
void sf_gate_reset(float *x, const float *bias, size_t n, size_t count);
/* Output: y = (1 - z) c, with its first and second tangents. */
void sf_gate_value(float *y, const float *value, size_t n);
void sf_gate_first(float *y, const float *first, const float *value, size_t n, size_t count);
void sf_gate_second(float *y, const float *second, const float *first, const float *value, size_t n,
                    size_t count);

#ifdef __cplusplus
}
#endif

#endif
