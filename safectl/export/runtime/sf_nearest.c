#include "sf_nearest.h"

#include "sf_math.h"

static const float *choice(const sf_choices *choices, size_t index) {
    return index == 0u ? choices->proposal : &choices->points[(index - 1u) * choices->size];
}

static float smallest(const float *values, size_t size) {
    float least = values[0];
    for (size_t i = 1; i < size; i++) {
        least = values[i] < least ? values[i] : least;
    }
    return least;
}

static int is_within(const float *action, const float *low, const float *high, size_t size) {
    int within = 1;
    for (size_t j = 0; j < size; j++) {
        within &= action[j] >= low[j] && action[j] <= high[j];
    }
    return within;
}

static float distance(const float *left, const float *right, size_t size) {
    float sum = 0.0f;
    for (size_t j = 0; j < size; j++) {
        const float away = left[j] - right[j];
        sum += away * away;
    }
    return sum;
}

sf_status sf_nearest_admissible(float *action, float *margin, const sf_choices *choices,
                                const float *low, const float *high) {
    const size_t size = choices->size;
    size_t nearest = 0u, loosest = choices->count > 1u ? 1u : 0u;
    float least_away = 0.0f, most_room = 0.0f;
    int is_found = 0, is_known = 0;
    for (size_t place = 1; place <= choices->count; place++) {
        const size_t index = place % choices->count;
        const float *const point = choice(choices, index);
        const float *const room = &choices->room[index * choices->rows];
        if (sf_all_finite(room, choices->rows) == 0) {
            continue;
        }
        const float least = smallest(room, choices->rows);
        if (is_known == 0 || least > most_room) {
            loosest = index;
            most_room = least;
        }
        is_known = 1;
        const float away = distance(point, choices->proposal, size);
        if (least >= 0.0f && is_within(point, low, high, size) != 0 &&
            (is_found == 0 || away < least_away || (index == 0u && away <= least_away))) {
            nearest = index;
            least_away = away;
            is_found = 1;
        }
    }
    const size_t chosen = is_found != 0 ? nearest : loosest;
    const float *const room = &choices->room[chosen * choices->rows];
    const float *const point = choice(choices, chosen);
    for (size_t j = 0; j < size; j++) {
        action[j] = point[j] < low[j] ? low[j] : (point[j] > high[j] ? high[j] : point[j]);
    }
    *margin = is_known != 0 && is_within(point, low, high, size) != 0
                  ? smallest(room, choices->rows)
                  : SF_MARGIN_UNKNOWN;
    if (is_found == 0) {
        return SF_FALLBACK;
    }
    return chosen == 0u ? SF_KEPT : SF_CORRECTED;
}
