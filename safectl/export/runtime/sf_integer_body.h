/* The functions of sf_integer.h for one number format; included once per format by sf_integer.c. */

void SF_NAME(sf_quantise)(SF_NUMBER *y, const float *x, float inverse, int32_t zero, size_t size) {
    const float offset = 12582912.0f + (float)zero;
    size_t i = 0;
    for (; i + 4u <= size; i += 4u) {
        y[i] = (SF_NUMBER)SF_FROM_WORD(magic_word(x[i], inverse, offset));
        y[i + 1u] = (SF_NUMBER)SF_FROM_WORD(magic_word(x[i + 1u], inverse, offset));
        y[i + 2u] = (SF_NUMBER)SF_FROM_WORD(magic_word(x[i + 2u], inverse, offset));
        y[i + 3u] = (SF_NUMBER)SF_FROM_WORD(magic_word(x[i + 3u], inverse, offset));
    }
    for (; i < size; i++) {
        y[i] = (SF_NUMBER)SF_FROM_WORD(magic_word(x[i], inverse, offset));
    }
}

void SF_NAME(sf_dequantise)(float *y, const SF_NUMBER *x, float scale, int32_t zero, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = (float)(x[i] - zero) * scale;
    }
}

/* Four inputs, split in pairs where the core multiplies two at a time. */
#ifdef SF_PAIRS
typedef struct {
    int16x2_t even, odd;
} SF_NAME(sf_four);

static inline SF_NAME(sf_four) SF_NAME(four_at)(const SF_NUMBER *x) {
#if SF_BITS == 16
    const SF_NAME(sf_four) four = {(int16x2_t)word_at(x), (int16x2_t)word_at(x + 2)};
#else
    const uint32_t word = word_at(x);
    const SF_NAME(sf_four) four = {even_bytes(word), odd_bytes(word)};
#endif
    return four;
}

static inline int32_t SF_NAME(add_four)(int32_t sum, SF_NAME(sf_four) x, const int8_t *w) {
    const uint32_t word = word_at(w);
    sum = __smlad(even_bytes(word), x.even, sum);
    return __smlad(odd_bytes(word), x.odd, sum);
}
#else
typedef const SF_NUMBER *SF_NAME(sf_four);

static inline SF_NAME(sf_four) SF_NAME(four_at)(const SF_NUMBER *x) {
    return x;
}

static inline int32_t SF_NAME(add_four)(int32_t sum, SF_NAME(sf_four) x, const int8_t *w) {
    return sum + w[0] * (int32_t)x[0] + w[SF_SECOND] * (int32_t)x[1] +
           w[SF_THIRD] * (int32_t)x[2] + w[3] * (int32_t)x[3];
}
#endif

void SF_NAME(sf_accumulate)(int32_t *sums, const SF_NUMBER *x, const int8_t *weight,
                            const int32_t *bias, size_t inputs, size_t outputs) {
    size_t row = 0;
    for (; row + 4u <= outputs; row += 4u) {
        int32_t a = bias[row], b = bias[row + 1u], c = bias[row + 2u], d = bias[row + 3u];
        for (const SF_NUMBER *from = x; from != &x[inputs]; from += 4, weight += 16) {
            const SF_NAME(sf_four) four = SF_NAME(four_at)(from);
            a = SF_NAME(add_four)(a, four, &weight[0]);
            b = SF_NAME(add_four)(b, four, &weight[4]);
            c = SF_NAME(add_four)(c, four, &weight[8]);
            d = SF_NAME(add_four)(d, four, &weight[12]);
        }
        sums[row] = a;
        sums[row + 1u] = b;
        sums[row + 2u] = c;
        sums[row + 3u] = d;
    }
    if ((outputs & 2u) != 0u) {
        int32_t a = bias[row], b = bias[row + 1u];
        for (const SF_NUMBER *from = x; from != &x[inputs]; from += 4, weight += 8) {
            const SF_NAME(sf_four) four = SF_NAME(four_at)(from);
            a = SF_NAME(add_four)(a, four, &weight[0]);
            b = SF_NAME(add_four)(b, four, &weight[4]);
        }
        sums[row] = a;
        sums[row + 1u] = b;
        row += 2u;
    }
    if ((outputs & 1u) != 0u) {
        int32_t a = bias[row];
        for (const SF_NUMBER *from = x; from != &x[inputs]; from += 4, weight += 4) {
            a = SF_NAME(add_four)(a, SF_NAME(four_at)(from), weight);
        }
        sums[row] = a;
    }
}

void SF_NAME(sf_requantise)(SF_NUMBER *y, const int32_t *sums, const int32_t *multiplier,
                            const int8_t *shift, int32_t zero, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = (SF_NUMBER)SF_SATURATED(scaled(sums[i], multiplier[i], shift[i], zero));
    }
}

void SF_NAME(sf_requantise_in)(SF_NUMBER *y, const int32_t *sums, const int32_t *multiplier,
                               const int8_t *shift, const sf_range *range, size_t size) {
    const int32_t gain = range->gain, zero = range->zero, low = range->low, high = range->high;
    for (size_t i = 0; i < size; i++) {
        const int32_t value = scaled(sums[i] * gain, multiplier[i], shift[i], zero);
        y[i] = (SF_NUMBER)clamp(value, low, high);
    }
}

void SF_NAME(sf_requantise_twice)(SF_NUMBER *y, const int32_t *sums, const int32_t *multiplier,
                                  const int8_t *shift, const sf_range *range, size_t size) {
    const int32_t zero = range->zero, low = range->low, high = range->high;
    for (size_t i = 0; i < size; i++) {
        const int32_t value = zero + scaled_twice(sums[i], multiplier[i], shift[i]);
        y[i] = (SF_NUMBER)clamp(value, low, high);
    }
}

/* The entries of the pixel under a tap, or NULL outside the image. */
static const SF_NUMBER *SF_NAME(seen)(const SF_NUMBER *x, const sf_window *w, size_t pixel,
                                      size_t tap) {
    const size_t row = (pixel / w->out_width) * w->stride_rows +
                       (tap / w->columns) * w->dilation_rows - w->top;
    const size_t column = (pixel % w->out_width) * w->stride_columns +
                          (tap % w->columns) * w->dilation_columns - w->left;
    const int is_inside = row < w->height && column < w->width;
    return is_inside != 0 ? &x[(row * w->width + column) * w->channels] : NULL;
}

static void SF_NAME(copy)(SF_NUMBER *to, const SF_NUMBER *from, size_t size) {
    size_t i = 0;
    for (; i + 4u <= size; i += 4u) {
        (void)memcpy(&to[i], &from[i], 4u * sizeof *to); /* one or two words where the core allows it */
    }
    for (; i < size; i++) {
        to[i] = from[i];
    }
}

/* Copies the window of one pixel and one group. A kernel row that lies inside the image and whose
 * taps are neighbours is one piece. */
static void SF_NAME(see)(SF_NUMBER *patch, const SF_NUMBER *x, const sf_window *w, SF_NUMBER outside,
                         size_t pixel, size_t group) {
    const size_t depth = w->channels / w->groups, width = w->columns * depth;
    const size_t first = (pixel % w->out_width) * w->stride_columns - w->left;
    const size_t last = first + (w->columns - 1u) * w->dilation_columns;
    const int is_piece = first < w->width && last < w->width && w->dilation_columns == 1u;
    size_t top = (pixel / w->out_width) * w->stride_rows - w->top;
    for (size_t row = 0; row < w->rows; row++, top += w->dilation_rows, patch += width) {
        const int is_row = top < w->height;
        const SF_NUMBER *from = &x[(is_row ? top * w->width * w->channels : 0u) + group * depth];
        if (is_row != 0 && is_piece != 0 && w->groups == 1u) {
            SF_NAME(copy)(patch, &from[first * depth], width);
            continue;
        }
        for (size_t i = 0, column = first; i < width; i += depth, column += w->dilation_columns) {
            for (size_t j = 0; j < depth; j++) {
                const int is_inside = is_row && column < w->width;
                patch[i + j] = (is_inside != 0) ? from[column * w->channels + j] : outside;
            }
        }
    }
}

void SF_NAME(sf_conv)(int32_t *sums, const SF_NUMBER *x, const int8_t *weight, const int32_t *bias,
                      const sf_window *window, int32_t padding, size_t pixel, SF_NUMBER *patch) {
    const size_t taps = window->rows * window->columns, depth = window->channels / window->groups;
    const size_t outputs = window->out_channels / window->groups;
    const size_t inputs = (taps * depth + 3u) / 4u * 4u;
    for (size_t group = 0; group < window->groups; group++) {
        SF_NAME(see)(patch, x, window, (SF_NUMBER)padding, pixel, group);
        SF_NAME(sf_accumulate)(&sums[group * outputs], patch, &weight[group * outputs * inputs],
                               &bias[group * outputs], inputs, outputs);
    }
}

void SF_NAME(sf_depthwise)(int32_t *sums, const SF_NUMBER *x, const int8_t *weight,
                           const int32_t *bias, const sf_window *window, int32_t padding,
                           size_t pixel) {
    const size_t outputs = window->out_channels, repeats = outputs / window->channels;
    for (size_t i = 0; i < outputs; i++) {
        sums[i] = bias[i];
    }
    for (size_t tap = 0; tap < window->rows * window->columns; tap++) {
        const SF_NUMBER *from = SF_NAME(seen)(x, window, pixel, tap);
        for (size_t channel = 0, i = 0; channel < window->channels; channel++) {
            const int32_t value = from != NULL ? from[channel] : padding;
            for (size_t j = 0; j < repeats; j++, i++) {
                sums[i] += weight[tap * outputs + i] * value;
            }
        }
    }
}

void SF_NAME(sf_max_pool)(SF_NUMBER *y, const SF_NUMBER *x, const sf_window *window) {
    const size_t channels = window->channels, pixels = window->out_height * window->out_width;
    for (size_t pixel = 0; pixel < pixels; pixel++, y += channels) {
        for (size_t i = 0; i < channels; i++) {
            y[i] = (SF_NUMBER)(-1 - ((1 << (SF_BITS - 1)) - 1));
        }
        for (size_t tap = 0; tap < window->rows * window->columns; tap++) {
            const SF_NUMBER *from = SF_NAME(seen)(x, window, pixel, tap);
            for (size_t i = 0; from != NULL && i < channels; i++) {
                y[i] = from[i] > y[i] ? from[i] : y[i];
            }
        }
    }
}

void SF_NAME(sf_average_pool)(SF_NUMBER *y, const SF_NUMBER *x, const sf_window *window,
                              int32_t padding, int count_padding) {
    const size_t channels = window->channels, pixels = window->out_height * window->out_width;
    const size_t taps = window->rows * window->columns;
    for (size_t pixel = 0; pixel < pixels; pixel++, y += channels) {
        for (size_t i = 0; i < channels; i++) {
            int32_t total = 0, count = 0;
            for (size_t tap = 0; tap < taps; tap++) {
                const SF_NUMBER *from = SF_NAME(seen)(x, window, pixel, tap);
                if (from != NULL || count_padding != 0) {
                    total += from != NULL ? from[i] : padding;
                    count++;
                }
            }
            y[i] = (SF_NUMBER)((total + (total < 0 ? -(count / 2) : count / 2)) / count);
        }
    }
}

void SF_NAME(sf_gather)(SF_NUMBER *y, const SF_NUMBER *x, const sf_axes *axes) {
    size_t at = 0;
    for (ptrdiff_t a = 0; a < axes->sizes[0]; a++) {
        for (ptrdiff_t b = 0; b < axes->sizes[1]; b++) {
            for (ptrdiff_t c = 0; c < axes->sizes[2]; c++) {
                for (ptrdiff_t d = 0; d < axes->sizes[3]; d++) {
                    const ptrdiff_t *steps = axes->strides;
                    y[at] = x[a * steps[0] + b * steps[1] + c * steps[2] + d * steps[3]];
                    at++;
                }
            }
        }
    }
}
