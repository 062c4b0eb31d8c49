/* A robot for tests: x[k+1] = x[k] + T u[k], as many states as actions; stopped means u = 0. */
#include "plant.h"

#include "robot_limits.h"

static float position[SF_NX];

void plant_observe(float observation[]) {
    for (int i = 0; i < SF_NX; i++) {
        observation[i] = position[i];
    }
}

void plant_apply(const float action[]) {
    for (int i = 0; i < SF_NX; i++) {
        position[i] += SF_PERIOD_S * action[i % SF_NU];
    }
}

void plant_stop(float applied[]) {
    for (int i = 0; i < SF_NU; i++) {
        applied[i] = 0.0f;
    }
}
