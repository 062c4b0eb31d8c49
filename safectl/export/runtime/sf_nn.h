/* Layers of a perceptron and element-wise operations. No argument overlaps an output. */
#ifndef SF_NN_H
#define SF_NN_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* y[i] = b[i] + w[i][0] x[0] + w[i][1] x[1] + ..., summed in this order.
 * The weights are stored in blocks of 4 outputs, input by input within a block; what remains forms
 * a block of 2 and a block of 1. Rows are independent, so blocks change no rounding. */
void sf_dense(float *y, const float *x, const float *weight, const float *bias, size_t inputs,
              size_t outputs);

void sf_relu(float *y, size_t size); /* in place; NaN stays NaN */
void sf_tanh(float *y, size_t size); /* in place */

/* y = clip((x - mean) scale + shift, -limit, limit) */
void sf_normalise(float *y, const float *x, const float *mean, const float *scale,
                  const float *shift, float limit, size_t size);

void sf_affine(float *y, const float *x, const float *gain, const float *shift, size_t size);
void sf_add(float *y, const float *left, const float *right, size_t size);
void sf_abs(float *y, const float *x, size_t size);

/* Returns 1 if nothing was changed. */
int sf_clip(float *y, const float *x, const float *low, const float *high, size_t size);

float sf_dot(const float *left, const float *right, size_t size);

#ifdef __cplusplus
}
#endif

#endif
