/* Layers over 8- and 16-bit integers with 8-bit weights and 32-bit sums: the arithmetic of CMSIS-NN
 * and TensorFlow Lite (int8, and 16x8) with one rounding per output. Twins: kinds/integer.py. */
#ifndef SF_INTEGER_H
#define SF_INTEGER_H

#include <stddef.h>
#include <stdint.h>

#include "sf_nn.h"
#include "sf_spatial.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How sums become outputs: clamp(sum * gain * multiplier / 2^(33 + shift) + zero, low, high), or,
 * rounded twice, clamp(sum * multiplier / 2^31 / 2^shift + zero, low, high). */
typedef struct {
    int32_t gain;
    int32_t zero;
    int32_t low;
    int32_t high;
} sf_range;

/* y[i] = (float)sums[i] scale[i] */
void sf_rescale(float *y, const int32_t *sums, const float *scale, size_t size);

/* y = table[x + 128] */
void sf_lookup_s8(int8_t *y, const int8_t *x, const int8_t *table, size_t size);

/* The same functions for both number formats.
 *
 * quantise: y = x inverse + zero, to nearest, ties to even; saturates, and so does NaN, which
 *     the step has therefore refused before.
 * dequantise: y = (x - zero) scale.
 * accumulate: sums of a dense layer. The weights lie in blocks of 4, 2 and 1 rows, four inputs of
 *     each row in turn, zeros after the last; `inputs` counts these zeros and is a multiple of four.
 *     Up to three entries past the end of x are read and multiplied by zero.
 * requantise: outputs from sums, rounded to nearest, halves upwards, saturated; or, `in`, limited;
 *     or, `twice`, rounded before and after the shift, then with halves away from zero, and limited.
 * conv, depthwise: sums of all channels of one pixel; outside the image lies `padding`. patch: one
 *     group of one window, and up to three entries more.
 * max_pool, average_pool: the average is rounded to nearest, halves away from zero. */
#define SF_INTEGER_FUNCTIONS(number, suffix)                                                       \
    void sf_quantise_##suffix(number *y, const float *x, float inverse, int32_t zero, size_t size);\
    void sf_dequantise_##suffix(float *y, const number *x, float scale, int32_t zero, size_t size);\
    void sf_accumulate_##suffix(int32_t *sums, const number *x, const int8_t *weight,              \
                                const int32_t *bias, size_t inputs, size_t outputs);               \
    void sf_requantise_##suffix(number *y, const int32_t *sums, const int32_t *multiplier,         \
                                const int8_t *shift, int32_t zero, size_t size);                   \
    void sf_requantise_in_##suffix(number *y, const int32_t *sums, const int32_t *multiplier,      \
                                   const int8_t *shift, const sf_range *range, size_t size);       \
    void sf_requantise_twice_##suffix(number *y, const int32_t *sums, const int32_t *multiplier,   \
                                      const int8_t *shift, const sf_range *range, size_t size);    \
    void sf_conv_##suffix(int32_t *sums, const number *x, const int8_t *weight,                    \
                          const int32_t *bias, const sf_window *window, int32_t padding,           \
                          size_t pixel, number *patch);                                            \
    void sf_depthwise_##suffix(int32_t *sums, const number *x, const int8_t *weight,               \
                               const int32_t *bias, const sf_window *window, int32_t padding,      \
                               size_t pixel);                                                      \
    void sf_max_pool_##suffix(number *y, const number *x, const sf_window *window);                \
    void sf_average_pool_##suffix(number *y, const number *x, const sf_window *window,             \
                                  int32_t padding, int count_padding);                             \
    void sf_gather_##suffix(number *y, const number *x, const sf_axes *axes);

SF_INTEGER_FUNCTIONS(int8_t, s8)
SF_INTEGER_FUNCTIONS(int16_t, s16)

#ifdef __cplusplus
}
#endif

#endif
