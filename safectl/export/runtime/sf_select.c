#include "sf_select.h"

#include "sf_math.h"

static int admissible(const sf_candidate *candidate) {
    int holds = 1;
    for (size_t i = 0; i < candidate->rows; i++) {
        const float room = candidate->room[i];
        holds &= (room >= 0.0f) && !sf_is_hidden_nan(room);
    }
    return holds;
}

static float smallest(const float *values, size_t size) {
    float least = values[0];
    for (size_t i = 1; i < size; i++) {
        least = values[i] < least ? values[i] : least;
    }
    return least;
}

void sf_keep_admissible(float *y, const sf_candidate *candidate, const float *other, size_t size) {
    sf_copy(y, admissible(candidate) ? candidate->action : other, size);
}

void sf_retreat(float *y, const sf_candidate *candidate, const sf_candidate *reserve,
                const float *backoff, size_t size) {
    float share = 1.0f;
    for (size_t i = 0; i < candidate->rows; i++) {
        const float there = reserve->room[i], here = candidate->room[i];
        const float half = 0.5f * there;
        const float aim = backoff[i] < half ? backoff[i] : half;
        if (here < 0.0f && (there - aim) / (there - here) < share) {
            share = (there - aim) / (there - here);
        }
    }
    const int moves = admissible(reserve) && share < 1.0f;
    for (size_t j = 0; j < size; j++) {
        const float from = reserve->action[j], to = candidate->action[j];
        y[j] = moves ? from + share * (to - from) : to;
    }
}

sf_status sf_first_admissible(float *action, float *margin, const sf_candidate candidates[],
                              size_t count, const float *low, const float *high, size_t size) {
    for (size_t c = 0; c + 1u < count; c++) {
        int within = admissible(&candidates[c]);
        for (size_t j = 0; j < size; j++) {
            const float entry = candidates[c].action[j];
            within &= entry >= low[j] && entry <= high[j];
        }
        if (within != 0) {
            sf_copy(action, candidates[c].action, size);
            *margin = smallest(candidates[c].room, candidates[c].rows);
            return c == 0u ? SF_KEPT : SF_CORRECTED;
        }
    }
    const sf_candidate *const last = &candidates[count - 1u];
    int known = sf_all_finite(last->room, last->rows);
    for (size_t j = 0; j < size; j++) {
        action[j] = sf_clip1(last->action[j], low[j], high[j]);
        known &= action[j] == last->action[j];
    }
    *margin = known ? smallest(last->room, last->rows) : SF_MARGIN_UNKNOWN;
    return SF_FALLBACK;
}

void sf_rate_window(float *window_low, float *window_high, const float *previous, const float *step,
                    const float *low, const float *high, size_t size) {
    for (size_t i = 0; i < size; i++) {
        const float inside = sf_clip1(previous[i], low[i], high[i]);
        const float below = inside - step[i], above = inside + step[i];
        window_low[i] = below < low[i] ? low[i] : below;
        window_high[i] = above > high[i] ? high[i] : above;
    }
}

void sf_recall(float *y, const float *held, const float *left, const float *other, size_t size) {
    sf_copy(y, *left > 0.0f ? held : other, size);
}

void sf_remember(float *held_after, float *left_after, const float *action, const float *status,
                 const float *held, const float *left, const float terms[2], size_t size) {
    const int is_certified = *status != (float)SF_FALLBACK;
    const float fewer = *left - terms[1];
    sf_copy(held_after, is_certified ? action : held, size);
    *left_after = is_certified ? terms[0] : (fewer > 0.0f ? fewer : 0.0f);
}

void sf_clamp(float *y, const float *x, const float *low, const float *high, size_t size) {
    for (size_t i = 0; i < size; i++) {
        y[i] = sf_clip1(x[i], low[i], high[i]);
    }
}
