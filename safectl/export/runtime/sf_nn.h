/* Dense layers and operations on whole vectors. Element-wise operations may work in place; beyond
 * that no argument overlaps an output but where stated. */
#ifndef SF_NN_H
#define SF_NN_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* y[i] = b[i] + w[i][0] x[0] + w[i][1] x[1] + ..., summed in this order.
 * The weights are stored in blocks of 4 outputs, input by input within a block; what remains forms
 * a block of 2 and a block of 1. Rows are independent, so blocks change no rounding. The bias may be
 * y itself, which then is added to. */
void sf_dense(float *y, const float *x, const float *weight, const float *bias, size_t inputs,
              size_t outputs);

/* The same weights for each of several rows. */
void sf_dense_rows(float *y, const float *x, const float *weight, const float *bias, size_t rows,
                   size_t inputs, size_t outputs);

/* y = (x - mean) / sqrt(variance + epsilon) gain + shift in each row; share = 1 / size. */
void sf_layer_norm(float *y, const float *x, const float *gain, const float *shift, float epsilon,
                   float share, size_t rows, size_t size);

/* y = clip((x - mean) scale + shift, -limit, limit) */
void sf_normalise(float *y, const float *x, const float *mean, const float *scale,
                  const float *shift, float limit, size_t size);

void sf_affine(float *y, const float *x, const float *gain, const float *shift, size_t size);
void sf_affine_rows(float *y, const float *x, const float *gain, const float *shift, size_t rows,
                    size_t size);
void sf_add(float *y, const float *left, const float *right, size_t size);
void sf_multiply(float *y, const float *left, const float *right, size_t size);
void sf_abs(float *y, const float *x, size_t size);

/* y = share y + (1 - share) other */
void sf_blend(float *y, const float *share, const float *other, size_t size);

void sf_fill(float *y, float value, size_t size);

/* y = clip(y, -limit, limit) */
void sf_limit(float *y, float limit, size_t size);

/* Copies rows of `size` entries to rows that begin `stride` entries apart. */
void sf_copy_rows(float *y, const float *x, size_t rows, size_t size, size_t stride);

/* A rearrangement: sizes of the result, and how far apart in x its neighbours lie. */
typedef struct {
    ptrdiff_t sizes[4];
    ptrdiff_t strides[4];
} sf_axes;

void sf_gather(float *y, const float *x, const sf_axes *axes);

/* Returns 1 if nothing was changed. */
int sf_clip(float *y, const float *x, const float *low, const float *high, size_t size);

float sf_dot(const float *left, const float *right, size_t size);

#ifdef __cplusplus
}
#endif

#endif
