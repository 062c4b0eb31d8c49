/* Neural generalised predictive control between the layers of its network: lags, cost, Newton step.
 * The generated step calls these in order; symbols as in safectl/planners/ngpc_problem.py. */
#ifndef SF_NGPC_H
#define SF_NGPC_H

#include "sf_core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Sizes of a problem, what it was given and its working memory. Tangents as in sf_tangent.h. */
typedef struct {
    size_t inputs;      /* m */
    size_t outputs;     /* p */
    size_t input_lags;  /* nd */
    size_t output_lags; /* dd */
    size_t past_inputs; /* applied inputs in the memory */
    size_t control;     /* Nu */
    size_t count;       /* nz, decisions */
    size_t pairs;       /* second tangents: nz (nz + 1) / 2, or 0 for Gauss-Newton */
    const float *tracking; /* square roots of 2 Q, p */
    const float *effort;   /* 2 L, m */
    const float *low;
    const float *high;
    const float *measured;    /* y(n) */
    const float *applied;     /* memory of the last step: u(n) u(n-1) ... */
    const float *past;        /* y(n-1) ... */
    const float *old_plan;
    const float *expected;    /* prediction, disturbance, 1 after the first step: 2 p + 1 */
    float *next_applied;      /* memory of the next step */
    float *next_past;
    float *plan;              /* in use already */
    float *prediction;
    float *disturbance;       /* in use already */
    float *lags;           /* max(nd m, dd p) */
    float *predicted;      /* N2 x p */
    float *first;          /* N2 x p x nz */
    float *second;         /* N2 x p x pairs */
    float *gradient;       /* nz */
    float *hessian;        /* nz (nz + 1) / 2: lower triangle, row by row */
    float *factor;         /* the same for its factor, with one over D on the diagonal */
    float *step;           /* nz */
} sf_ngpc;

/* Takes the measurement in: disturbance, past outputs, shifted plan. */
void sf_ngpc_measure(sf_ngpc *w, float disturbance_gain);

/* First layer at sample k, 1 to N2, before its activation: value, tangents. `base` is its bias with
 * the sensors; its weights are row after row, `columns` long. */
void sf_ngpc_value(const sf_ngpc *w, size_t k, float *y, const float *base, const float *weight,
                   size_t columns, size_t rows);
void sf_ngpc_first(const sf_ngpc *w, size_t k, float *y, const float *weight, size_t columns,
                   size_t rows);
void sf_ngpc_second(const sf_ngpc *w, size_t k, float *y, const float *weight, size_t columns,
                    size_t rows);

/* Starts gradient and Hessian with the errors of samples N1 to N2, whose references are `stride`
 * apart; overwrites predictions and first tangents by their weighted errors. */
void sf_ngpc_track(const sf_ngpc *w, size_t first, size_t last, const float *reference,
                   size_t stride);

/* Adds what the second tangents of these samples say. */
void sf_ngpc_bend(const sf_ngpc *w, size_t first, size_t last);

/* Adds the moves of the plan. */
void sf_ngpc_move(const sf_ngpc *w);

/* Adds the barrier between low and high, or holds what the gradient pushes out of the box. */
void sf_ngpc_barrier(const sf_ngpc *w, float sharpness, const float *low, const float *high);
void sf_ngpc_hold(const sf_ngpc *w);

/* Takes one Newton step, projected on the limits. Returns 1 if it was neither damped nor limited. */
int sf_ngpc_newton(const sf_ngpc *w);

/* Writes action and margin, the distance to the nearest limit, and completes the next memory. */
void sf_ngpc_finish(const sf_ngpc *w, float *action, float *margin);

#ifdef __cplusplus
}
#endif

#endif
