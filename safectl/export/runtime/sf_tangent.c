#include "sf_tangent.h"

#include "sf_nn.h"

void sf_rows_value(float *y, const float *x, const float *weight, const float *start,
                   size_t columns, size_t inputs, size_t outputs) {
    size_t i = 0;
    for (; i + 2u <= outputs; i += 2u, weight += 2u * columns) { /* two rows share their input */
        float y0 = start[i], y1 = start[i + 1u];
        for (size_t k = 0; k < inputs; k++) {
            y0 += weight[k] * x[k];
            y1 += weight[columns + k] * x[k];
        }
        y[i] = y0;
        y[i + 1u] = y1;
    }
    if (i < outputs) {
        float y0 = start[i];
        for (size_t k = 0; k < inputs; k++) {
            y0 += weight[k] * x[k];
        }
        y[i] = y0;
    }
}

/* Six directions share their weight, or one goes alone; the sums stay in registers. */
#define EACH6(what) what(0); what(1); what(2); what(3); what(4); what(5)
#define READ(h) y##h = y[h]
#define TERM(h) y##h += *w * x[h]
#define WRITE(h) y[h] = y##h

static void row6(float *y, const float *x, const float *w, int is_new, size_t inputs,
                 size_t count) {
    float y0 = 0.0f, y1 = 0.0f, y2 = 0.0f, y3 = 0.0f, y4 = 0.0f, y5 = 0.0f;
    if (!is_new) {
        EACH6(READ);
    }
    for (const float *end = w + inputs; w < end; w++, x += count) {
        EACH6(TERM);
    }
    EACH6(WRITE);
}

static void row1(float *y, const float *x, const float *w, int is_new, size_t inputs,
                 size_t count) {
    float y0 = is_new ? 0.0f : y[0];
    for (const float *end = w + inputs; w < end; w++, x += count) {
        TERM(0);
    }
    WRITE(0);
}

void sf_rows_tangent(float *y, const float *x, const float *weight, int is_new, size_t columns,
                     size_t inputs, size_t outputs, size_t count) {
    for (size_t i = 0; i < outputs; i++, y += count, weight += columns) {
        size_t h = 0;
        for (; h + 6u <= count; h += 6u) {
            row6(&y[h], &x[h], weight, is_new, inputs, count);
        }
        for (; h < count; h++) {
            row1(&y[h], &x[h], weight, is_new, inputs, count);
        }
    }
}

void sf_rows_input(float *y, const float *weight, size_t columns, size_t inputs, size_t outputs,
                   size_t count) {
    for (size_t i = 0; i < outputs; i++, y += count, weight += columns) {
        for (size_t h = 0; h < inputs; h++) {
            y[h] += weight[h];
        }
    }
}

void sf_slope_relu(float *slope, const float *a, size_t size) {
    for (size_t i = 0; i < size; i++) {
        slope[i] = a[i] > 0.0f ? 1.0f : 0.0f;
    }
}

void sf_slope_tanh(float *slope, const float *a, size_t size) {
    for (size_t i = 0; i < size; i++) {
        slope[i] = 1.0f - a[i] * a[i];
    }
}

void sf_slope_sigmoid(float *slope, const float *a, size_t size) {
    for (size_t i = 0; i < size; i++) {
        slope[i] = a[i] * (1.0f - a[i]);
    }
}

void sf_bend_relu(float *bend, const float *a, const float *slope, size_t size) {
    (void)a;
    (void)slope;
    sf_fill(bend, 0.0f, size);
}

void sf_bend_tanh(float *bend, const float *a, const float *slope, size_t size) {
    for (size_t i = 0; i < size; i++) {
        bend[i] = -2.0f * a[i] * slope[i];
    }
}

void sf_bend_sigmoid(float *bend, const float *a, const float *slope, size_t size) {
    for (size_t i = 0; i < size; i++) {
        bend[i] = slope[i] * (1.0f - 2.0f * a[i]);
    }
}

void sf_tangent_bend(float *second, const float *first, const float *slope, const float *bend,
                     size_t size, size_t count) {
    for (size_t i = 0; i < size; i++, first += count) {
        for (size_t h = 0; h < count; h++) {
            for (size_t g = 0; g <= h; g++, second++) {
                *second = slope[i] * *second + bend[i] * (first[h] * first[g]);
            }
        }
    }
}

void sf_tangent_scale(float *first, const float *slope, size_t size, size_t count) {
    for (size_t i = 0; i < size; i++) {
        const float factor = slope[i];
        for (const float *end = first + count; first < end; first++) {
            *first *= factor;
        }
    }
}

void sf_gate_reset(float *x, const float *bias, size_t n, size_t count) {
    const float *r = &x[n * count];
    float *c = &x[2u * n * count];
    for (size_t i = 0; i < n; i++) {
        for (size_t h = 0; h < count; h++, r++, c++) {
            *c += *r * bias[i];
        }
    }
}

void sf_gate_value(float *y, const float *value, size_t n) {
    for (size_t i = 0; i < n; i++) {
        y[i] = (1.0f - value[i]) * value[2u * n + i];
    }
}

void sf_gate_first(float *y, const float *first, const float *value, size_t n, size_t count) {
    const float *dc = &first[2u * n * count];
    for (size_t i = 0; i < n; i++) {
        for (size_t h = 0; h < count; h++, y++, first++, dc++) {
            *y = (1.0f - value[i]) * *dc - *first * value[2u * n + i];
        }
    }
}

void sf_gate_second(float *y, const float *second, const float *first, const float *value, size_t n,
                    size_t count) {
    const float *dc = &first[2u * n * count];
    const float *d2c = &second[n * count * (count + 1u)];
    for (size_t i = 0; i < n; i++, first += count, dc += count) {
        for (size_t h = 0; h < count; h++) {
            for (size_t g = 0; g <= h; g++, y++, second++, d2c++) {
                const float crossed = first[h] * dc[g] + first[g] * dc[h];
                *y = (1.0f - value[i]) * *d2c - crossed - *second * value[2u * n + i];
            }
        }
    }
}
