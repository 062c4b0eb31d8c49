/* Adaptation of a network to drifting sensors, one sample at a time; twins: export/kinds/adapt.py. */
#ifndef SF_ADAPT_H
#define SF_ADAPT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Memory of the Kalman filter of gains and offsets, n channels: gain (n), offset (n), variance of the
 * gain (n), of the offset (n), their covariance (n), score, samples. */

/* z = gain x + offset */
void sf_adapt_correct(float *z, const float *x, const float *memory, size_t n);

/* y[k] = sum of x[i] slope[i] W[i][k]: one step of the chain rule towards the input. */
void sf_adapt_back(float *y, const float *x, const float *slope, const float *weight, size_t inputs,
                   size_t outputs);

/* One scalar measurement: error = target - prediction at the gains of `memory`, jacobian = d
 * prediction / d z. Nothing happens within `band` and beyond `clip`. */
void sf_adapt_update(float *next, const float *memory, const float *x, const float *jacobian,
                     float error, float noise, float band, float clip, size_t n);

/* Compares squared errors with those of the factory values over `window` samples, then forgets a bad
 * adaptation: `next` becomes `factory`. */
void sf_adapt_judge(float *next, const float *adapted, const float *original, const float *target,
                    const float *factory, float window, size_t p, size_t n);

/* Recursive least squares of a last layer of p rows and h inputs: memory weight (p, h), bias (p),
 * covariance (h + 1, h + 1). hidden holds h values and room for a one; gain h + 1 floats. */
void sf_adapt_least_squares(float *next, float *hidden, float *gain, const float *error,
                            const float *slope, float forgetting, size_t h, size_t p);

/* A dense layer in Q4.12: weights row after row, tanh or identity. */
typedef struct {
    const int16_t *weight;
    const int16_t *bias;
    int32_t inputs;
    int32_t outputs;
    int32_t is_tanh;
} sf_fixed_layer;

/* Two-point forward gradient of gains and offsets in Q4.12. Memory, whole numbers: gain (n), offset
 * (n), random state in two halves, largest recent difference. work: 2 width integers.
 * Perturbation 2^exponent; update = difference >> max(shift, what keeps it below 2^6). */
typedef struct {
    const sf_fixed_layer *layers;
    int32_t count;
    int32_t n;
    int32_t p;
    int32_t width;
    int32_t exponent;
    int32_t shift;
    int32_t band; /* sum of both losses up to which nothing is learned */
    int32_t clip; /* difference of losses from which a sample is rejected */
} sf_forward_gradient;

void sf_adapt_forward(float *next, float *prediction, const float *x, const float *target,
                      const float *memory, const sf_forward_gradient *problem, int32_t *work);

#ifdef __cplusplus
}
#endif

#endif
