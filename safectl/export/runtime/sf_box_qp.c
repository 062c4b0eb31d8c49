#include "sf_box_qp.h"

#include "sf_math.h"
#include "sf_nn.h"

#define RELAXATION 1.8f
#define OLD_SHARE (-0.8f) /* 1 - relaxation */

void sf_box_qp(float *z, float *work, const float *centre, const sf_box_problem *problem) {
    const size_t size = problem->size;
    float *const y = work;
    float *const difference = &work[size];
    float *const u = &work[2u * size];
    for (size_t i = 0; i < size; i++) {
        z[i] = 0.0f;
        y[i] = 0.0f;
    }
    for (size_t k = 0; k < problem->iterations; k++) {
        for (size_t i = 0; i < size; i++) {
            difference[i] = z[i] - y[i];
        }
        sf_dense(u, difference, problem->weight, centre, size, size);
        for (size_t i = 0; i < size; i++) {
            const float v = (RELAXATION * u[i] + OLD_SHARE * z[i]) + y[i];
            z[i] = sf_clip1(v, problem->low[i], problem->high[i]);
            y[i] = v - z[i];
        }
    }
}
