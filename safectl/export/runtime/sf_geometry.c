#include "sf_geometry.h"

#include <stdint.h>

#include "sf_core.h"
#include "sf_math.h"

#define ROUND 12582912.0f /* 1.5 * 2^23: adding it rounds to the nearest integer */

/* sin(x + quarters pi / 2), see export/geometry.py */
static float turned(float angle, uint32_t quarters) {
    const float x = sf_clip1(angle, -4.0e6f, 4.0e6f);
    const float shifted = x * 0.636619772f + ROUND;
    const float k = shifted - ROUND;
    const float r = ((x - k * 1.5703125f) - k * 4.83751297e-4f) - k * 7.54978996e-8f;
    const float z = r * r;
    const float odd = ((-1.95152959e-4f * z + 8.33216087e-3f) * z + -0.166666546f) * z * r + r;
    const float even =
        ((2.44331571e-5f * z + -1.38873163e-3f) * z + 0.0416666457f) * z * z - 0.5f * z + 1.0f;
    const uint32_t quadrant = sf_bits(shifted) + quarters;
    const float value = (quadrant & 1u) == 0u ? odd : even;
    return (quadrant & 2u) == 0u ? value : -value;
}

void sf_sine(float *y, const float *x, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = turned(x[i], 0u);
    }
}

void sf_cosine(float *y, const float *x, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = turned(x[i], 1u);
    }
}

void sf_divide(float *y, const float *left, const float *right, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = left[i] / right[i];
    }
}

void sf_matmul(float *y, const float *left, const float *right, size_t rows, size_t inner,
               size_t columns) {
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < columns; j++) {
            float total = 0.0f;
            for (size_t k = 0; k < inner; k++) {
                total += left[i * inner + k] * right[k * columns + j];
            }
            y[i * columns + j] = total;
        }
    }
}

void sf_discs(float *value, float *gradient, const float *position, const float *centres,
              float radius, size_t size, size_t count) {
    for (size_t i = 0; i < count; i++) {
        float *const unit = &gradient[i * size];
        float square = 0.0f;
        for (size_t j = 0; j < size; j++) {
            unit[j] = position[j] - centres[i * size + j];
            square += unit[j] * unit[j];
        }
        const float inverse = sf_reciprocal_root1(square == 0.0f ? 1.0f : square);
        for (size_t j = 0; j < size; j++) {
            const float first = j == 0u ? 1.0f : 0.0f;
            unit[j] = square == 0.0f ? first : unit[j] * inverse;
        }
        value[i] = square * inverse - radius;
    }
}

void sf_superellipse(float *value, float *gradient, const float *position, const float *centre,
                     const float *inverse, size_t size, size_t doublings) {
    float largest = 0.0f, total = 0.0f;
    for (size_t i = 0; i < size; i++) {
        gradient[i] = (position[i] - centre[i]) * inverse[i];
        const float magnitude = gradient[i] < 0.0f ? -gradient[i] : gradient[i];
        largest = magnitude > largest ? magnitude : largest;
    }
    const float unit = largest == 0.0f ? 1.0f : largest;
    for (size_t i = 0; i < size; i++) {
        float power = (gradient[i] < 0.0f ? -gradient[i] : gradient[i]) / unit;
        for (size_t n = 0; n < doublings; n++) {
            power = power * power;
        }
        total += power;
    }
    float root = largest == 0.0f ? 1.0f : total;
    for (size_t n = 0; n < doublings; n++) {
        root = root * sf_reciprocal_root1(root);
    }
    for (size_t i = 0; i < size; i++) {
        const float share = (gradient[i] < 0.0f ? -gradient[i] : gradient[i]) / unit / root;
        float slope = share;
        for (size_t n = 1; n < doublings; n++) {
            slope = slope * slope * share;
        }
        const float first = i == 0u ? 1.0f : 0.0f;
        const float along = gradient[i] < 0.0f ? -slope : slope;
        gradient[i] = (largest == 0.0f ? first : along) * inverse[i];
    }
    *value = largest * root - 1.0f;
}

void sf_least(float *value, float *gradient, const float *values, const float *gradients,
              size_t count, size_t size) {
    size_t least = 0;
    for (size_t i = 1; i < count; i++) {
        const int is_less = values[i] < values[least] || sf_is_nan(values[i]);
        if (is_less && !sf_is_nan(values[least])) {
            least = i;
        }
    }
    *value = values[least];
    sf_copy(gradient, &gradients[least * size], size);
}

void sf_soft_least(float *value, float *gradient, const float *values, const float *gradients,
                   size_t count, size_t size, float sharpness) {
    float joined = -sharpness * values[0];
    for (size_t i = 1; i < count; i++) {
        const float gap = -sharpness * values[i] - joined;
        joined += gap < 0.0f ? sf_log1p1(sf_exp1(gap)) : gap + sf_log1p1(sf_exp1(-gap));
    }
    for (size_t j = 0; j < size; j++) {
        gradient[j] = 0.0f;
    }
    for (size_t i = 0; i < count; i++) {
        const float weight = sf_exp1(-sharpness * values[i] - joined);
        for (size_t j = 0; j < size; j++) {
            gradient[j] += weight * gradients[i * size + j];
        }
    }
    *value = -joined / sharpness;
}

void sf_stopping_distance(float *value, float *gradient, const float *motion, const float *low,
                          const float *high, float period, float step, size_t axes) {
    for (size_t i = 0; i < 4u * axes * axes; i++) {
        gradient[i] = 0.0f;
    }
    for (size_t i = 0; i < axes; i++) {
        const float position = motion[i], velocity = motion[axes + i];
        const float speed = velocity < 0.0f ? -velocity : velocity;
        const float ratio = sf_clip1(speed / step, 0.0f, 1.0e6f);
        const float shifted = ratio + ROUND;
        const float nearest = shifted - ROUND;
        const float n = nearest > ratio ? nearest - 1.0f : nearest;
        const float distance = period * ((n + 0.5f) * speed - ((0.5f * step) * n) * (n + 1.0f));
        const float slope = period * (n + 0.5f);
        float *const above = &gradient[i * 2u * axes];
        float *const below = &gradient[(axes + i) * 2u * axes];
        value[i] = (high[i] - position) - (velocity > 0.0f ? distance : 0.0f);
        value[axes + i] = (position - low[i]) - (velocity < 0.0f ? distance : 0.0f);
        above[i] = -1.0f;
        below[i] = 1.0f;
        above[axes + i] = velocity > 0.0f ? -slope : 0.0f;
        below[axes + i] = velocity < 0.0f ? slope : 0.0f;
    }
}
