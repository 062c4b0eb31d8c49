/* Angles, discs and braking distances. No argument overlaps an output. */
#ifndef SF_GEOMETRY_H
#define SF_GEOMETRY_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* sin and cos, entry by entry, with an absolute error below 2e-7 + 2^-23 |x|. */
void sf_sine(float *y, const float *x, size_t size);
void sf_cosine(float *y, const float *x, size_t size);

/* y[i] = left[i] / right[i] */
void sf_divide(float *y, const float *left, const float *right, size_t size);

/* y = left (rows x inner) right (inner x columns), sums over inner from zero. */
void sf_matmul(float *y, const float *left, const float *right, size_t rows, size_t inner,
               size_t columns);

/* |p - c_i| - radius for `count` centres of `size` coordinates, and its gradient in p. */
void sf_discs(float *value, float *gradient, const float *position, const float *centres,
              float radius, size_t size, size_t count);

/* |z|_p - 1 and its gradient for z = (position - centre) inverse and p = 2^doublings. */
void sf_superellipse(float *value, float *gradient, const float *position, const float *centre,
                     const float *inverse, size_t size, size_t doublings);

/* The smallest of `count` values with its row of gradients, `size` entries each; NaN is smallest. */
void sf_least(float *value, float *gradient, const float *values, const float *gradients,
              size_t count, size_t size);

/* -log(sum exp(-sharpness h)) / sharpness, and the mean of the gradients by its weights. */
void sf_soft_least(float *value, float *gradient, const float *values, const float *gradients,
                   size_t count, size_t size, float sharpness);

/* Room left after braking below `high` and above `low`, and its gradient, 2 axes x 2 axes.
 * motion: positions, then velocities. step: change of velocity in one period of braking. */
void sf_stopping_distance(float *value, float *gradient, const float *motion, const float *low,
                          const float *high, float period, float step, size_t axes);

#ifdef __cplusplus
}
#endif

#endif
