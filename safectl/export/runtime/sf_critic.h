/* Correcting an action along the gradient of a critic. */
#ifndef SF_CRITIC_H
#define SF_CRITIC_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { SF_LINEAR, SF_RELU, SF_TANH, SF_SIGMOID } sf_shape;

/* One layer; weights as `sf_dense` reads them. */
typedef struct {
    const float *weight;
    const float *bias;
    size_t inputs;
    size_t outputs;
    sf_shape shape;
} sf_layer;

/* A perceptron from the action to a number per cost; the bias of its first layer holds what the
 * observation adds. With the least room = g - bound of all outputs, each iteration moves the action
 * by step (aim - room) grad / |grad|^2 (newton) or step grad / max |grad_i|, within and along the
 * limits, until room >= 0. */
typedef struct {
    const sf_layer *layers;
    size_t count;
    const float *low;
    const float *high;
    size_t size; /* entries of the action */
    float step;
    int newton;
    float aim;
    size_t iterations;
    size_t widest; /* most outputs of a layer, at least `size` */
} sf_critic;

/* Writes the first iterate that reaches every bound, else the best one, and the least room there
 * (room[0]) and at the proposal (room[1]). The action is NaN where room[0] is not finite, so that the finite
 * test at the end of a step sees it. work: the sum of all outputs, 2 widest and size floats. */
void sf_correct(float *action, float *room, float *work, const float *proposal,
                const float *bound, const sf_critic *critic);

#ifdef __cplusplus
}
#endif

#endif
