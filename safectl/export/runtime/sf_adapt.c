#include "sf_adapt.h"

#include "sf_core.h"
#include "sf_math.h"
#include "sf_nn.h"

#define ONE 4096 /* 1.0 in Q4.12 */
#define LARGEST_STEP_BITS 6

void sf_adapt_correct(float *z, const float *x, const float *memory, size_t n) {
    for (size_t k = 0; k < n; k++) {
        z[k] = memory[k] * x[k] + memory[n + k];
    }
}

void sf_adapt_back(float *y, const float *x, const float *slope, const float *weight, size_t inputs,
                   size_t outputs) {
    sf_fill(y, 0.0f, inputs);
    for (size_t i = 0; i < outputs; i++, weight += inputs) {
        const float factor = x[i] * slope[i];
        for (size_t k = 0; k < inputs; k++) {
            y[k] += factor * weight[k];
        }
    }
}

void sf_adapt_update(float *next, const float *memory, const float *x, const float *jacobian,
                     float error, float noise, float band, float clip, size_t n) {
    float *gain = next, *offset = &next[n], *vg = &next[2u * n], *vo = &next[3u * n];
    float *vc = &next[4u * n];
    float innovation = error, variance = noise;
    for (size_t k = 0; k < n; k++) {
        const float j = jacobian[k], jx = j * x[k];
        innovation -= jx * (gain[k] - memory[k]) + j * (offset[k] - memory[n + k]);
        variance += jx * (vg[k] * jx + vc[k] * j) + j * (vc[k] * jx + vo[k] * j);
    }
    const float size = innovation < 0.0f ? -innovation : innovation;
    if (!(size > band && size < clip)) {
        return;
    }
    const float inverse = 1.0f / variance;
    for (size_t k = 0; k < n; k++) {
        const float j = jacobian[k], jx = j * x[k];
        const float toward_gain = vg[k] * jx + vc[k] * j, toward_offset = vc[k] * jx + vo[k] * j;
        const float gain_share = toward_gain * inverse, offset_share = toward_offset * inverse;
        gain[k] += gain_share * innovation;
        offset[k] += offset_share * innovation;
        vg[k] -= gain_share * toward_gain;
        vc[k] -= gain_share * toward_offset;
        vo[k] -= offset_share * toward_offset;
    }
}

void sf_adapt_judge(float *next, const float *adapted, const float *original, const float *target,
                    const float *factory, float window, size_t p, size_t n) {
    float *score = &next[5u * n], *samples = &score[1];
    for (size_t i = 0; i < p; i++) {
        const float ours = target[i] - adapted[i], theirs = target[i] - original[i];
        *score += theirs * theirs - ours * ours;
    }
    *samples += 1.0f;
    if (*samples >= window) {
        if (*score < 0.0f) {
            sf_copy(next, factory, 5u * n);
        }
        *score = 0.0f;
        *samples = 0.0f;
    }
}

void sf_adapt_least_squares(float *next, float *hidden, float *gain, const float *error,
                            const float *slope, float forgetting, size_t h, size_t p) {
    const size_t size = h + 1u;
    float *bias = &next[p * h], *covariance = &bias[p];
    float total = forgetting;
    hidden[h] = 1.0f;
    for (size_t i = 0; i < size; i++) {
        gain[i] = sf_dot(&covariance[i * size], hidden, size);
        total += hidden[i] * gain[i];
    }
    const float inverse = 1.0f / total, growth = 1.0f / forgetting;
    for (size_t o = 0; o < p; o++) {
        /* the error before the activation; its slope is kept away from zero */
        const float wanted = error[o] / (slope[o] < 0.05f ? 0.05f : slope[o]) * inverse;
        for (size_t i = 0; i < h; i++) {
            next[o * h + i] += wanted * gain[i];
        }
        bias[o] += wanted * gain[h];
    }
    for (size_t i = 0; i < size; i++) {
        for (size_t j = 0; j < size; j++) {
            const float less = gain[i] * gain[j] * inverse;
            covariance[i * size + j] = (covariance[i * size + j] - less) * growth;
        }
    }
}

/* tanh(i / 16) in Q4.12 */
static const int16_t tanh_table[66] = {
    0, 256, 509, 759, 1003, 1240, 1468, 1686, 1893, 2088, 2272, 2443, 2602, 2748, 2883, 3007,
    3119, 3222, 3315, 3399, 3475, 3543, 3604, 3659, 3707, 3751, 3790, 3825, 3856, 3883, 3908, 3929,
    3949, 3966, 3981, 3994, 4006, 4016, 4026, 4034, 4041, 4048, 4053, 4058, 4063, 4067, 4070, 4073,
    4076, 4078, 4080, 4082, 4084, 4085, 4086, 4088, 4089, 4089, 4090, 4091, 4091, 4092, 4092, 4093,
    4093, 4094};

/* Divides by 2^bits and rounds down, also below zero. */
static int32_t shift_down(int32_t value, int32_t bits) {
    return value >= 0 ? value >> bits : ~(~value >> bits);
}

static int32_t saturate(int32_t value, int32_t limit) {
    return value < -limit ? -limit : (value > limit ? limit : value);
}

static int32_t fixed_tanh(int32_t value) {
    const int32_t size = saturate(value < 0 ? -value : value, 4 * ONE);
    const int32_t i = size >> 8, rest = size & 255;
    const int32_t result = tanh_table[i] + (((tanh_table[i + 1] - tanh_table[i]) * rest) >> 8);
    return value < 0 ? -result : result;
}

static int32_t fixed(float value, float limit) {
    return (int32_t)(sf_clip1(value, -limit, limit) * 4096.0f);
}

static uint32_t next_random(uint32_t state) {
    state ^= state << 13;
    state ^= state >> 17;
    return state ^ (state << 5);
}

/* Loss at gains and offsets moved by `move` along the direction of `seed`; the outputs are in work. */
static int32_t loss_at(const sf_forward_gradient *problem, const float *memory, const float *x,
                       const float *target, int32_t move, uint32_t seed, int32_t *work) {
    const int32_t n = problem->n;
    int32_t *from = work, *to = &work[problem->width];
    for (int32_t k = 0; k < n; k++) {
        seed = next_random(seed);
        const int32_t gain = (int32_t)memory[k] + ((seed & 1u) ? move : -move);
        const int32_t offset = (int32_t)memory[n + k] + ((seed & 2u) ? move : -move);
        from[k] = saturate(shift_down(gain * fixed(x[k], 2.0f), 12) + offset, 2 * ONE);
    }
    for (int32_t l = 0; l < problem->count; l++) {
        const sf_fixed_layer *layer = &problem->layers[l];
        for (int32_t i = 0; i < layer->outputs; i++) {
            int32_t sum = layer->bias[i] * ONE;
            for (int32_t k = 0; k < layer->inputs; k++) {
                sum += layer->weight[i * layer->inputs + k] * from[k];
            }
            sum = shift_down(sum, 12);
            to[i] = layer->is_tanh ? fixed_tanh(sum) : saturate(sum, 2 * ONE);
        }
        int32_t *const swap = from;
        from = to;
        to = swap;
    }
    int32_t loss = 0;
    for (int32_t i = 0; i < problem->p; i++) {
        const int32_t error = fixed(target[i], 2.0f) - from[i];
        work[i] = from[i];
        loss += shift_down(error * error, 6);
    }
    return loss;
}

void sf_adapt_forward(float *next, float *prediction, const float *x, const float *target,
                      const float *memory, const sf_forward_gradient *problem, int32_t *work) {
    const int32_t n = problem->n, move = (int32_t)1 << problem->exponent;
    const uint32_t seed =
        ((uint32_t)memory[2 * n] << 16) | (uint32_t)memory[2 * n + 1];
    (void)loss_at(problem, memory, x, target, 0, seed, work);
    for (int32_t i = 0; i < problem->p; i++) {
        prediction[i] = (float)work[i] * (1.0f / 4096.0f);
    }
    const int32_t above = loss_at(problem, memory, x, target, move, seed, work);
    const int32_t below = loss_at(problem, memory, x, target, -move, seed, work);
    const int32_t difference = above - below, size = difference < 0 ? -difference : difference;
    const int32_t before = (int32_t)memory[2 * n + 2];
    const int32_t recent = size > before ? size : before - (before >> 6);
    const int is_learning = above + below > problem->band && size < problem->clip;
    int32_t shift = problem->shift;
    while ((recent >> shift) >> LARGEST_STEP_BITS) {
        shift++;
    }
    const int32_t step = is_learning ? shift_down(difference, shift) : 0;
    uint32_t state = seed;
    for (int32_t k = 0; k < n; k++) {
        state = next_random(state);
        const int32_t gain = (int32_t)memory[k] - ((state & 1u) ? step : -step);
        const int32_t offset = (int32_t)memory[n + k] - ((state & 2u) ? step : -step);
        next[k] = (float)saturate(gain, 32767);
        next[n + k] = (float)saturate(offset, 32767);
    }
    next[2 * n] = (float)(state >> 16);
    next[2 * n + 1] = (float)(state & 0xffffu);
    next[2 * n + 2] = (float)saturate(recent, 1 << 24);
}
