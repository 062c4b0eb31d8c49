#include "sf_activation.h"

#include "sf_math.h"

void sf_relu(float *y, const float *x, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = sf_relu1(x[i]);
    }
}

void sf_relu6(float *y, const float *x, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = sf_clip1(x[i], 0.0f, 6.0f);
    }
}

void sf_leaky_relu(float *y, const float *x, float alpha, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = x[i] < 0.0f ? alpha * x[i] : x[i];
    }
}

void sf_elu(float *y, const float *x, float alpha, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = x[i] < 0.0f ? alpha * (sf_exp1(x[i]) - 1.0f) : x[i];
    }
}

void sf_selu(float *y, const float *x, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = 1.05070099f * (x[i] < 0.0f ? 1.67326324f * (sf_exp1(x[i]) - 1.0f) : x[i]);
    }
}

void sf_softplus(float *y, const float *x, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = x[i] < 0.0f ? sf_log1p1(sf_exp1(x[i])) : x[i] + sf_log1p1(sf_exp1(-x[i]));
    }
}

void sf_softsign(float *y, const float *x, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = x[i] / (1.0f + (x[i] < 0.0f ? -x[i] : x[i]));
    }
}

void sf_tanh(float *y, const float *x, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = sf_tanh1(x[i]);
    }
}

void sf_sigmoid(float *y, const float *x, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = sf_sigmoid1(x[i]);
    }
}

void sf_hard_sigmoid(float *y, const float *x, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = sf_clip1(0.2f * x[i] + 0.5f, 0.0f, 1.0f);
    }
}

void sf_hard_sigmoid_v3(float *y, const float *x, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = sf_clip1((x[i] + 3.0f) * 0.166666667f, 0.0f, 1.0f);
    }
}

void sf_exponential(float *y, const float *x, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = sf_exp1(x[i]);
    }
}

void sf_swish(float *y, const float *x, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = x[i] / (1.0f + sf_exp1(-x[i]));
    }
}

void sf_gelu(float *y, const float *x, size_t size) {
    for (size_t i = 0; i < size; i++) {
        const float v = x[i];
        const float magnitude = v < 0.0f ? -v : v;
        const float tail = (0.5f * magnitude) * sf_erfc1(0.707106781f * magnitude);
        y[i] = v < 0.0f ? -tail : v - tail;
    }
}

void sf_gelu_tanh(float *y, const float *x, size_t size) {
    for (size_t i = 0; i < size; i++) {
        const float v = x[i];
        const float argument = -1.59576912f * (v + ((0.044715f * v) * v) * v);
        y[i] = v / (1.0f + sf_exp1(argument));
    }
}

void sf_softmax(float *y, const float *x, size_t rows, size_t size) {
    for (size_t row = 0; row < rows; row++, x += size, y += size) {
        float largest = x[0];
        for (size_t i = 1; i < size; i++) {
            largest = x[i] > largest ? x[i] : largest;
        }
        float total = 0.0f;
        for (size_t i = 0; i < size; i++) {
            y[i] = sf_exp1(x[i] - largest);
            total += y[i];
        }
        for (size_t i = 0; i < size; i++) {
            y[i] = y[i] / total;
        }
    }
}
