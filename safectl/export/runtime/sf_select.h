/* Choosing among candidate actions by their constraint values. */
#ifndef SF_SELECT_H
#define SF_SELECT_H

#include "sf_core.h"

#ifdef __cplusplus
extern "C" {
#endif

/* An action and its constraint values, zero or more where met. */
typedef struct {
    const float *action;
    const float *room;
    size_t rows;
} sf_candidate;

/* The action where its constraint values are zero or more, else the other. */
void sf_keep_admissible(float *y, const sf_candidate *candidate, const float *other, size_t size);

/* Moves towards an admissible reserve, to where the secant of each violated constraint reaches the
 * smaller of its backoff and half its value at the reserve. */
void sf_retreat(float *y, const sf_candidate *candidate, const sf_candidate *reserve,
                const float *backoff, size_t size);

/* Writes the first of `count` candidates that meets its constraints and the limits, else the last.
 * SF_KEPT for the first, SF_FALLBACK for the last, SF_CORRECTED between. */
sf_status sf_first_admissible(float *action, float *margin, const sf_candidate candidates[],
                              size_t count, const float *low, const float *high, size_t size);

/* Limits of an action that may differ by `step` from the one before. */
void sf_rate_window(float *window_low, float *window_high, const float *previous, const float *step,
                    const float *low, const float *high, size_t size);

/* The held action where it may be repeated, else the other. */
void sf_recall(float *y, const float *held, const float *left, const float *other, size_t size);

/* The last certified action and how often it may be repeated: `terms[0]` times after a certified
 * one, `terms[1]` less after each that is not. */
void sf_remember(float *held_after, float *left_after, const float *action, const float *status,
                 const float *held, const float *left, const float terms[2], size_t size);

/* y = clip(x, low, high) with limits that are values of the program. */
void sf_clamp(float *y, const float *x, const float *low, const float *high, size_t size);

#ifdef __cplusplus
}
#endif

#endif
