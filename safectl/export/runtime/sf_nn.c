#include "sf_nn.h"

#include "sf_math.h"

/* One input of a block of outputs. Four inputs per pass of the loop spend fewer instructions on the
 * loop itself; side by side, independent sums hide the latency of the additions. Neither changes the
 * order of the operations that make up one output. */
#define INPUT1(i) (y0 += w[i] * x[k + (i)])
#define INPUT2(i)                  \
    do {                           \
        const float v = x[k + (i)]; \
        y0 += w[2 * (i)] * v;      \
        y1 += w[2 * (i) + 1] * v;  \
    } while (0)
#define INPUT4(i)                  \
    do {                           \
        const float v = x[k + (i)]; \
        y0 += w[4 * (i)] * v;      \
        y1 += w[4 * (i) + 1] * v;  \
        y2 += w[4 * (i) + 2] * v;  \
        y3 += w[4 * (i) + 3] * v;  \
    } while (0)
#define INPUTS(width)                                        \
    size_t k = 0;                                            \
    for (; k + 4u <= inputs; k += 4u, w += (size_t)4 * (width)) {    \
        INPUT##width(0);                                     \
        INPUT##width(1);                                     \
        INPUT##width(2);                                     \
        INPUT##width(3);                                     \
    }                                                        \
    for (; k < inputs; k++, w += (width)) {                  \
        INPUT##width(0);                                     \
    }

static void dense4(float *y, const float *x, const float *w, const float *bias, size_t inputs) {
    float y0 = bias[0], y1 = bias[1], y2 = bias[2], y3 = bias[3];
    INPUTS(4)
    y[0] = y0;
    y[1] = y1;
    y[2] = y2;
    y[3] = y3;
}

static void dense2(float *y, const float *x, const float *w, const float *bias, size_t inputs) {
    float y0 = bias[0], y1 = bias[1];
    INPUTS(2)
    y[0] = y0;
    y[1] = y1;
}

static void dense1(float *y, const float *x, const float *w, const float *bias, size_t inputs) {
    float y0 = bias[0];
    INPUTS(1)
    y[0] = y0;
}

void sf_dense(float *y, const float *x, const float *weight, const float *bias, size_t inputs,
              size_t outputs) {
    size_t i = 0;
    for (; i + 4u <= outputs; i += 4u) {
        dense4(&y[i], x, &weight[i * inputs], &bias[i], inputs);
    }
    if ((outputs & 2u) != 0u) {
        dense2(&y[i], x, &weight[i * inputs], &bias[i], inputs);
        i += 2u;
    }
    if ((outputs & 1u) != 0u) {
        dense1(&y[i], x, &weight[i * inputs], &bias[i], inputs);
    }
}

void sf_dense_rows(float *y, const float *x, const float *weight, const float *bias, size_t rows,
                   size_t inputs, size_t outputs) {
    for (size_t row = 0; row < rows; row++) {
        sf_dense(&y[row * outputs], &x[row * inputs], weight, bias, inputs, outputs);
    }
}

void sf_layer_norm(float *y, const float *x, const float *gain, const float *shift, float epsilon,
                   float share, size_t rows, size_t size) {
    for (size_t row = 0; row < rows; row++, x += size, y += size) {
        float total = 0.0f;
        for (size_t i = 0; i < size; i++) {
            total += x[i];
        }
        const float mean = total * share;
        total = 0.0f;
        for (size_t i = 0; i < size; i++) {
            y[i] = x[i] - mean;
            total += y[i] * y[i];
        }
        const float scale = sf_reciprocal_root1(total * share + epsilon);
        for (size_t i = 0; i < size; i++) {
            y[i] = (y[i] * scale) * gain[i] + shift[i];
        }
    }
}

void sf_normalise(float *y, const float *x, const float *mean, const float *scale,
                  const float *shift, float limit, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = sf_clip1((x[i] - mean[i]) * scale[i] + shift[i], -limit, limit);
    }
}

void sf_affine(float *y, const float *x, const float *gain, const float *shift, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = x[i] * gain[i] + shift[i];
    }
}

void sf_affine_rows(float *y, const float *x, const float *gain, const float *shift, size_t rows,
                    size_t size) {
    for (size_t row = 0; row < rows; row++) {
        sf_affine(&y[row * size], &x[row * size], gain, shift, size);
    }
}

void sf_add(float *y, const float *left, const float *right, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = left[i] + right[i];
    }
}

void sf_multiply(float *y, const float *left, const float *right, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = left[i] * right[i];
    }
}

void sf_blend(float *y, const float *share, const float *other, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = share[i] * y[i] + (1.0f - share[i]) * other[i];
    }
}

void sf_abs(float *y, const float *x, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = x[i] < 0.0f ? -x[i] : x[i];
    }
}

int sf_clip(float *y, const float *x, const float *low, const float *high, size_t size) {
    int same = 1;
    for (size_t i = 0; i < size; i++) {
        y[i] = sf_clip1(x[i], low[i], high[i]);
        same &= y[i] == x[i];
    }
    return same;
}

float sf_dot(const float *left, const float *right, size_t size) {
    float total = 0.0f;
    for (size_t i = 0; i < size; i++) {
        total += left[i] * right[i];
    }
    return total;
}

void sf_fill(float *y, float value, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = value;
    }
}

void sf_limit(float *y, float limit, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = sf_clip1(y[i], -limit, limit);
    }
}

void sf_copy_rows(float *y, const float *x, size_t rows, size_t size, size_t stride) {
    for (size_t row = 0; row < rows; row++) {
        for (size_t i = 0; i < size; i++) {
            y[row * stride + i] = x[row * size + i];
        }
    }
}

void sf_gather(float *y, const float *x, const sf_axes *axes) {
    size_t at = 0;
    for (ptrdiff_t a = 0; a < axes->sizes[0]; a++) {
        for (ptrdiff_t b = 0; b < axes->sizes[1]; b++) {
            for (ptrdiff_t c = 0; c < axes->sizes[2]; c++) {
                const float *from =
                    &x[a * axes->strides[0] + b * axes->strides[1] + c * axes->strides[2]];
                for (ptrdiff_t d = 0; d < axes->sizes[3]; d++) {
                    y[at] = from[d * axes->strides[3]];
                    at++;
                }
            }
        }
    }
}
