/* Activations, element by element unless stated; y may be x. Twins: export/kinds/activation.py. */
#ifndef SF_ACTIVATION_H
#define SF_ACTIVATION_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

void sf_relu(float *y, const float *x, size_t size); /* NaN stays NaN, here and below */
void sf_relu6(float *y, const float *x, size_t size);
void sf_leaky_relu(float *y, const float *x, float alpha, size_t size);
void sf_elu(float *y, const float *x, float alpha, size_t size);
void sf_selu(float *y, const float *x, size_t size);
void sf_softplus(float *y, const float *x, size_t size);
void sf_softsign(float *y, const float *x, size_t size);
void sf_tanh(float *y, const float *x, size_t size);
void sf_sigmoid(float *y, const float *x, size_t size);
void sf_hard_sigmoid(float *y, const float *x, size_t size);    /* clip(0.2 x + 0.5, 0, 1) */
void sf_hard_sigmoid_v3(float *y, const float *x, size_t size); /* clip((x + 3) / 6, 0, 1) */
void sf_exponential(float *y, const float *x, size_t size);
void sf_swish(float *y, const float *x, size_t size);
void sf_gelu(float *y, const float *x, size_t size);
void sf_gelu_tanh(float *y, const float *x, size_t size);

/* Each of `rows` rows of `size` entries becomes positive and sums to one. */
void sf_softmax(float *y, const float *x, size_t rows, size_t size);

#ifdef __cplusplus
}
#endif

#endif
