/* Convolution and pooling over channel-last images (height, width, channels). */
#ifndef SF_SPATIAL_H
#define SF_SPATIAL_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How a kernel slides over an image. Below and right of the padding the image ends by itself. */
typedef struct {
    size_t height, width, channels; /* of the input */
    size_t rows, columns;           /* of the kernel */
    size_t stride_rows, stride_columns;
    size_t top, left; /* rows and columns outside, before the image */
    size_t dilation_rows, dilation_columns;
    size_t out_height, out_width, out_channels;
    size_t groups;
} sf_window;

/* The weights are those of `sf_dense` for rows of (kernel row, kernel column, channel), group by
 * group; what lies outside the image is zero. patch: one group of one window. */
void sf_conv2d(float *y, const float *x, const float *weight, const float *bias, float *patch,
               const sf_window *window);

/* Every channel by itself; the weights are (kernel row, kernel column, output channel). Taps outside
 * the image are left out. */
void sf_depthwise_conv2d(float *y, const float *x, const float *weight, const float *bias,
                         const sf_window *window);

void sf_max_pool2d(float *y, const float *x, const sf_window *window);

/* The mean of what lies inside the image or, with count_padding, of all taps with zeros outside. */
void sf_average_pool2d(float *y, const float *x, const sf_window *window, int count_padding);

#ifdef __cplusplus
}
#endif

#endif
