#include "sf_critic.h"

#include "sf_core.h"
#include "sf_math.h"
#include "sf_nn.h"

#define FLATTEST 1e-16f /* squared gradient that says nothing about where to go */

static float activated(float x, sf_shape shape) {
    switch (shape) {
        case SF_RELU:
            return sf_relu1(x);
        case SF_TANH:
            return sf_tanh1(x);
        case SF_SIGMOID:
            return 0.5f * sf_tanh1(0.5f * x) + 0.5f;
        case SF_LINEAR:
        default:
            return x;
    }
}

/* The derivative of an activation from its output. */
static float slope(float y, sf_shape shape) {
    switch (shape) {
        case SF_RELU:
            return y > 0.0f ? 1.0f : 0.0f;
        case SF_TANH:
            return 1.0f - y * y;
        case SF_SIGMOID:
            return y * (1.0f - y);
        case SF_LINEAR:
        default:
            return 1.0f;
    }
}

/* x[k] = adjoint[0] w[0][k] + adjoint[1] w[1][k] + ..., with the weights in blocks of rows. */
static void back(float *x, const float *adjoint, const sf_layer *layer) {
    const float *w = layer->weight;
    for (size_t k = 0; k < layer->inputs; k++) {
        x[k] = 0.0f;
    }
    size_t o = 0;
    while (o < layer->outputs) {
        const size_t left = layer->outputs - o;
        size_t width = 4u;
        while (width > left) {
            width /= 2u;
        }
        for (size_t k = 0; k < layer->inputs; k++) {
            float total = x[k];
            for (size_t r = 0; r < width; r++) {
                total += adjoint[o + r] * *w++;
            }
            x[k] = total;
        }
        o += width;
    }
}

/* Evaluates the critic at an action, keeping the outputs of all layers. Returns the least room and
 * the output that has it; the first that is not finite counts as the least. */
static float forward(float *outputs, size_t *worst, const float *action, const float *bound,
                     const sf_critic *critic) {
    const float *x = action;
    float *y = outputs;
    for (size_t l = 0; l < critic->count; l++) {
        const sf_layer *const layer = &critic->layers[l];
        sf_dense(y, x, layer->weight, layer->bias, layer->inputs, layer->outputs);
        for (size_t i = 0; i < layer->outputs; i++) {
            y[i] = activated(y[i], layer->shape);
        }
        x = y;
        y += layer->outputs;
    }
    const size_t costs = critic->layers[critic->count - 1u].outputs;
    float room = x[0] - bound[0];
    *worst = 0u;
    for (size_t i = 1; i < costs && sf_all_finite(&room, 1u) != 0; i++) {
        const float other = x[i] - bound[i];
        if (other < room || sf_all_finite(&other, 1u) == 0) {
            room = other;
            *worst = i;
        }
    }
    return room;
}

/* Writes the gradient of one output with respect to the action at the outputs of `forward`. */
static float *gradient(float *adjoints, const float *outputs_end, size_t worst,
                       const sf_critic *critic) {
    float *adjoint = adjoints, *other = adjoints + critic->widest;
    const float *y = outputs_end;
    for (size_t i = 0; i < critic->layers[critic->count - 1u].outputs; i++) {
        adjoint[i] = i == worst ? 1.0f : 0.0f;
    }
    for (size_t l = 0; l < critic->count; l++) {
        const sf_layer *const layer = &critic->layers[critic->count - 1u - l];
        y -= layer->outputs;
        for (size_t i = 0; i < layer->outputs; i++) {
            adjoint[i] = adjoint[i] * slope(y[i], layer->shape);
        }
        back(other, adjoint, layer);
        float *const swap = adjoint;
        adjoint = other;
        other = swap;
    }
    return adjoint;
}

/* Zeroes the entries along which an ascent would leave the limits. */
static void turn_inward(float *slopes, const float *action, const sf_critic *critic) {
    for (size_t j = 0; j < critic->size; j++) {
        const int inward = slopes[j] > 0.0f ? action[j] < critic->high[j]
                                            : action[j] > critic->low[j];
        if (inward == 0) {
            slopes[j] = 0.0f;
        }
    }
}

static float largest(const float *values, size_t size) {
    float most = 0.0f;
    for (size_t i = 0; i < size; i++) {
        const float magnitude = values[i] < 0.0f ? -values[i] : values[i];
        most = magnitude > most ? magnitude : most;
    }
    return most;
}

void sf_correct(float *action, float *room, float *work, const float *proposal,
                const float *bound, const sf_critic *critic) {
    const size_t size = critic->size;
    float *const present = work;
    float *const outputs = &work[size];
    float *end = outputs;
    for (size_t l = 0; l < critic->count; l++) {
        end += critic->layers[l].outputs;
    }
    sf_copy(present, proposal, size);
    sf_copy(action, proposal, size);
    size_t worst;
    float value = forward(outputs, &worst, present, bound, critic);
    float best = value;
    room[1] = value;
    for (size_t i = 0; i < critic->iterations && !(value >= 0.0f); i++) {
        float *const slopes = gradient(end, end, worst, critic);
        turn_inward(slopes, present, critic);
        const float square = sf_dot(slopes, slopes, size);
        if (!(square > FLATTEST)) {
            break;
        }
        const float factor = critic->newton
                                 ? (critic->step * (critic->aim - value)) / square
                                 : critic->step / largest(slopes, size);
        for (size_t j = 0; j < size; j++) {
            present[j] =
                sf_clip1(present[j] + factor * slopes[j], critic->low[j], critic->high[j]);
        }
        value = forward(outputs, &worst, present, bound, critic);
        if (value > best) {
            best = value;
            sf_copy(action, present, size);
        }
    }
    room[0] = best;
    if (sf_all_finite(room, 1u) == 0) {
        for (size_t j = 0; j < size; j++) {
            action[j] = sf_from_bits(0x7fc00000u);
        }
    }
}
