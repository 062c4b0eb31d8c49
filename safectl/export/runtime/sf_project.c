#include "sf_project.h"

#include "sf_math.h"
#include "sf_nn.h"

/* Fractions of the way to the best vertex by which an answer that misses the half-space by rounding
 * is moved: first two units in the last place of the box width, then four times as far, and again. */
static const float lifts[3] = {2.38418579e-07f, 9.53674316e-07f, 3.81469727e-06f};

#define LARGEST 3.40282347e+38f

/* Entry i of the vertex of the box with the largest margin, nearest to the proposal. */
static float vertex_entry(const sf_region *region, const float *proposal, size_t i) {
    const float a = region->normal[i];
    if (a == 0.0f) {
        return sf_clip1(proposal[i], region->low[i], region->high[i]);
    }
    return a > 0.0f ? region->high[i] : region->low[i];
}

/* normal . clip(proposal + t normal) */
static float value_at(const sf_region *region, const float *proposal, float t) {
    const float *a = region->normal;
    float total = 0.0f;
    for (size_t i = 0; i < region->size; i++) {
        total += a[i] * sf_clip1(proposal[i] + t * a[i], region->low[i], region->high[i]);
    }
    return total;
}

/* t with value_at(t) = target, given value_at(0) = start < target <= best. */
static float multiplier(const sf_region *region, const float *proposal, float target, float start,
                        float best) {
    const float *a = region->normal;
    float left = 0.0f, left_value = start, right = LARGEST, right_value = best;
    for (size_t j = 0; j < 2u * region->size; j++) {
        const size_t i = j / 2u;
        const float limit = (j & 1u) ? region->high[i] : region->low[i];
        float t = 0.0f;
        if (a[i] != 0.0f) {
            t = sf_clip1((limit - proposal[i]) / a[i], 0.0f, LARGEST);
        }
        const float value = value_at(region, proposal, t);
        if (value < target && t >= left) {
            left = t;
            left_value = value;
        }
        if (value >= target && t <= right) {
            right = t;
            right_value = value;
        }
    }
    const float share = (target - left_value) / (right_value - left_value);
    return left + share * (right - left);
}

sf_status sf_project_halfspace_box(float *action, float *margin, const float *proposal,
                                   const sf_region *region) {
    const float *a = region->normal;
    const float *low = region->low;
    const float *high = region->high;
    const float offset = region->offset;
    const size_t size = region->size;
    float reached = 0.0f, best = 0.0f;
    int inside = 1;
    for (size_t i = 0; i < size; i++) {
        action[i] = sf_clip1(proposal[i], low[i], high[i]);
        inside &= action[i] == proposal[i];
        reached += a[i] * action[i];
        best += a[i] * vertex_entry(region, proposal, i);
    }
    if (reached >= offset) {
        *margin = reached - offset;
        return inside ? SF_KEPT : SF_CORRECTED;
    }
    const float target = offset + region->backoff;
    if (!(best >= target)) {
        for (size_t i = 0; i < size; i++) {
            action[i] = vertex_entry(region, proposal, i);
        }
        *margin = best - offset;
        return best >= offset ? SF_CORRECTED : SF_FALLBACK;
    }
    const float t = multiplier(region, proposal, target, reached, best);
    for (size_t i = 0; i < size; i++) {
        action[i] = sf_clip1(proposal[i] + t * a[i], low[i], high[i]);
    }
    reached = sf_dot(a, action, size);
    for (size_t pass = 0; pass < 3u && reached < offset; pass++) {
        float fraction = (offset - reached) / (best - reached);
        fraction = fraction + fraction + lifts[pass];
        for (size_t i = 0; i < size; i++) {
            const float way = vertex_entry(region, proposal, i) - action[i];
            action[i] = sf_clip1(action[i] + fraction * way, low[i], high[i]);
        }
        reached = sf_dot(a, action, size);
    }
    if (reached < offset) {
        for (size_t i = 0; i < size; i++) {
            action[i] = vertex_entry(region, proposal, i);
        }
        reached = sf_dot(a, action, size);
    }
    *margin = reached - offset;
    return SF_CORRECTED;
}
