#include "sf_spatial.h"

#include "sf_core.h"
#include "sf_math.h"
#include "sf_nn.h"

/* Index of the pixel under a tap, or the number of pixels if it lies outside: subtracting more than
 * there is wraps around to a number beyond every image. */
static size_t pixel_at(const sf_window *w, size_t out_row, size_t out_column, size_t tap_row,
                       size_t tap_column) {
    const size_t row = out_row * w->stride_rows + tap_row * w->dilation_rows - w->top;
    const size_t column = out_column * w->stride_columns + tap_column * w->dilation_columns - w->left;
    return row < w->height && column < w->width ? row * w->width + column : w->height * w->width;
}

/* Copies what one window sees of one group of channels. A kernel row that lies inside the image and
 * whose taps are neighbours is one piece. */
static void gather(float *patch, const float *x, const sf_window *w, size_t out_row,
                   size_t out_column, size_t group) {
    const size_t depth = w->channels / w->groups, width = w->columns * depth;
    const size_t first = out_column * w->stride_columns - w->left;
    const size_t last = first + (w->columns - 1u) * w->dilation_columns;
    const int is_piece = first < w->width && last < w->width && w->dilation_columns == 1u;
    size_t top = out_row * w->stride_rows - w->top;
    for (size_t row = 0; row < w->rows; row++, top += w->dilation_rows, patch += width) {
        const int is_row = top < w->height;
        const float *from = &x[(is_row ? top * w->width * w->channels : 0u) + group * depth];
        if (is_row && is_piece && w->groups == 1u) {
            sf_copy(patch, &from[first * depth], width);
            continue;
        }
        for (size_t i = 0, column = first; i < width; i += depth, column += w->dilation_columns) {
            for (size_t j = 0; j < depth; j++) {
                const int is_inside = is_row && column < w->width;
                patch[i + j] = is_inside ? from[column * w->channels + j] : 0.0f;
            }
        }
    }
}

void sf_conv2d(float *y, const float *x, const float *weight, const float *bias, float *patch,
               const sf_window *window) {
    const size_t inputs = window->rows * window->columns * window->channels / window->groups;
    const size_t outputs = window->out_channels / window->groups;
    for (size_t row = 0; row < window->out_height; row++) {
        for (size_t column = 0; column < window->out_width; column++) {
            for (size_t group = 0; group < window->groups; group++, y += outputs) {
                gather(patch, x, window, row, column, group);
                sf_dense(y, patch, &weight[group * outputs * inputs], &bias[group * outputs], inputs,
                         outputs);
            }
        }
    }
}

/* Adds one tap to all output channels of a pixel. */
static void add_tap(float *y, const float *x, const float *weight, size_t channels, size_t repeats) {
    for (size_t channel = 0; channel < channels; channel++) {
        for (size_t i = 0; i < repeats; i++, y++, weight++) {
            *y += *weight * x[channel];
        }
    }
}

void sf_depthwise_conv2d(float *y, const float *x, const float *weight, const float *bias,
                         const sf_window *window) {
    const size_t channels = window->channels, outputs = window->out_channels;
    const size_t pixels = window->height * window->width;
    for (size_t place = 0; place < window->out_height * window->out_width; place++, y += outputs) {
        for (size_t i = 0; i < outputs; i++) {
            y[i] = bias[i];
        }
        for (size_t tap = 0; tap < window->rows * window->columns; tap++) {
            const size_t pixel =
                pixel_at(window, place / window->out_width, place % window->out_width,
                         tap / window->columns, tap % window->columns);
            if (pixel < pixels) {
                add_tap(y, &x[pixel * channels], &weight[tap * outputs], channels,
                        outputs / channels);
            }
        }
    }
}

void sf_max_pool2d(float *y, const float *x, const sf_window *window) {
    const size_t channels = window->channels, pixels = window->height * window->width;
    for (size_t place = 0; place < window->out_height * window->out_width; place++, y += channels) {
        int known = 0;
        for (size_t tap = 0; tap < window->rows * window->columns; tap++) {
            const size_t pixel =
                pixel_at(window, place / window->out_width, place % window->out_width,
                         tap / window->columns, tap % window->columns);
            for (size_t i = 0; pixel < pixels && i < channels; i++) {
                const float value = x[pixel * channels + i];
                if (!known || (value > y[i] && !sf_is_hidden_nan(y[i])) ||
                    sf_is_nan(value)) { /* NaN stays NaN */
                    y[i] = value;
                }
            }
            known |= pixel < pixels;
        }
    }
}

void sf_average_pool2d(float *y, const float *x, const sf_window *window, int count_padding) {
    const size_t channels = window->channels, pixels = window->height * window->width;
    const size_t taps = window->rows * window->columns;
    for (size_t place = 0; place < window->out_height * window->out_width; place++, y += channels) {
        float count = 0.0f;
        sf_fill(y, 0.0f, channels);
        for (size_t tap = 0; tap < taps; tap++) {
            const size_t pixel =
                pixel_at(window, place / window->out_width, place % window->out_width,
                         tap / window->columns, tap % window->columns);
            for (size_t i = 0; pixel < pixels && i < channels; i++) {
                y[i] += x[pixel * channels + i];
            }
            count += pixel < pixels ? 1.0f : 0.0f;
        }
        count = count_padding ? (float)taps : count;
        for (size_t i = 0; i < channels; i++) {
            y[i] = y[i] / count;
        }
    }
}
