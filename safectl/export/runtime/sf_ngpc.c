#include "sf_ngpc.h"

#include "sf_math.h"
#include "sf_nn.h"
#include "sf_tangent.h"

/* Multiples of the size of the Hessian added to its diagonal until it can be factorised. */
static const float damping[6] = {0.0f, 1e-4f, 1e-3f, 1e-2f, 1e-1f, 2.0f};

#define LEAST_PIVOT 1e-6f /* relative to the diagonal entry */

void sf_ngpc_measure(sf_ngpc *w, float disturbance_gain) {
    const size_t p = w->outputs;
    const int is_started = w->expected[2u * p] > 0.0f;
    for (size_t i = 0; i < p; i++) {
        const float innovation = is_started ? w->measured[i] - w->expected[i] : 0.0f;
        w->disturbance[i] = w->expected[p + i] + disturbance_gain * innovation;
    }
    w->disturbance[p] = 1.0f;
    if (!is_started) { /* the outputs before the first are taken to equal it */
        for (size_t lag = 1; lag < w->output_lags; lag++) {
            sf_copy(&w->next_past[(lag - 1u) * p], w->measured, p);
        }
        w->past = w->next_past;
    }
    for (size_t h = 0; h < w->count; h++) {
        w->plan[h] = w->old_plan[h + w->inputs < w->count ? h + w->inputs : h];
    }
}

void sf_ngpc_value(const sf_ngpc *w, size_t k, float *y, const float *base, const float *weight,
                   size_t columns, size_t rows) {
    const size_t m = w->inputs, p = w->outputs;
    float *lags = w->lags;
    for (size_t lag = 0; lag < w->input_lags; lag++, lags += m) {
        const size_t j = k - lag < w->control ? k - lag : w->control;
        sf_copy(lags, k > lag ? &w->plan[(j - 1u) * m] : &w->applied[(lag - k) * m], m);
    }
    for (size_t lag = 1; lag <= w->output_lags; lag++, lags += p) {
        const float *from = lag == k ? w->measured : &w->past[(lag - k - 1u) * p];
        sf_copy(lags, k > lag ? &w->predicted[(k - lag - 1u) * p] : from, p);
    }
    sf_rows_value(y, w->lags, weight, base, columns, (size_t)(lags - w->lags), rows);
}

/* Adds the tangents of earlier predictions, p x count per sample, through the output lags. */
static void add_lags(const sf_ngpc *w, size_t k, float *y, const float *tangents, size_t count,
                     const float *weight, size_t columns, size_t rows) {
    const size_t p = w->outputs;
    weight += w->input_lags * w->inputs;
    for (size_t lag = 1; lag <= w->output_lags && lag < k; lag++, weight += p) {
        sf_rows_tangent(y, &tangents[(k - lag - 1u) * p * count], weight, 0, columns, p, rows,
                        count);
    }
}

void sf_ngpc_first(const sf_ngpc *w, size_t k, float *y, const float *weight, size_t columns,
                   size_t rows) {
    const size_t m = w->inputs;
    sf_fill(y, 0.0f, rows * w->count);
    for (size_t lag = 0; lag < w->input_lags && lag < k; lag++) {
        const size_t j = k - lag < w->control ? k - lag : w->control;
        sf_rows_input(&y[(j - 1u) * m], &weight[lag * m], columns, m, rows, w->count);
    }
    add_lags(w, k, y, w->first, w->count, weight, columns, rows);
}

void sf_ngpc_second(const sf_ngpc *w, size_t k, float *y, const float *weight, size_t columns,
                    size_t rows) {
    sf_fill(y, 0.0f, rows * w->pairs);
    add_lags(w, k, y, w->second, w->pairs, weight, columns, rows);
}

void sf_ngpc_track(const sf_ngpc *w, size_t first, size_t last, const float *reference,
                   size_t stride) {
    const size_t p = w->outputs, nz = w->count, start = (first - 1u) * p, end = last * p;
    const float *rows = &w->first[start * nz];
    for (size_t r = start; r < end; reference += stride) {
        for (size_t i = 0; i < p; i++, r++) {
            w->predicted[r] = w->tracking[i] * (reference[i] - w->predicted[r]);
            sf_tangent_scale(&w->first[r * nz], &w->tracking[i], 1u, nz);
        }
    }
    float *entry = w->hessian;
    for (size_t h = 0; h < nz; h++) {
        float sum = 0.0f;
        for (size_t r = start; r < end; r++) {
            sum += rows[(r - start) * nz + h] * w->predicted[r];
        }
        w->gradient[h] = -sum;
        for (size_t g = 0; g <= h; g++, entry++) {
            const float *left = &rows[h], *right = &rows[g];
            sum = 0.0f;
            for (size_t r = start; r < end; r++, left += nz, right += nz) {
                sum += *left * *right;
            }
            *entry = sum;
        }
    }
}

void sf_ngpc_bend(const sf_ngpc *w, size_t first, size_t last) {
    const size_t p = w->outputs;
    for (size_t r = (first - 1u) * p; r < last * p; r++) {
        const float pull = w->tracking[r % p] * w->predicted[r];
        for (size_t pair = 0; pair < w->pairs; pair++) {
            w->hessian[pair] -= pull * w->second[r * w->pairs + pair];
        }
    }
}

/* Entry (h, g <= h) of a lower triangle. */
static size_t at(size_t h, size_t g) { return h * (h + 1u) / 2u + g; }

void sf_ngpc_move(const sf_ngpc *w) {
    const size_t m = w->inputs;
    float *diagonal = w->hessian; /* entry (h, h); (h, h - m) lies m before it */
    for (size_t h = 0; h < w->count; diagonal += h + 2u, h++) {
        const float twice = w->effort[h % m];
        const float pull = twice * (w->plan[h] - (h < m ? w->applied[h] : w->plan[h - m]));
        w->gradient[h] += pull;
        *diagonal += twice;
        if (h >= m) {
            w->gradient[h - m] -= pull;
            *(diagonal - m) -= twice;
            w->hessian[at(h - m, h - m)] += twice;
        }
    }
}

void sf_ngpc_barrier(const sf_ngpc *w, float sharpness, const float *low, const float *high) {
    const float *plan = w->plan;
    float *diagonal = w->hessian;
    for (size_t h = 0; h < w->count; diagonal += h + 2u, h++) {
        const size_t i = h % w->inputs;
        const float below = 1.0f / (plan[h] - low[i]), above = 1.0f / (high[i] - plan[h]);
        w->gradient[h] += sharpness * (above * above - below * below);
        *diagonal += 2.0f * sharpness * (below * below * below + above * above * above);
    }
}

void sf_ngpc_hold(const sf_ngpc *w) {
    const float *plan = w->plan;
    for (size_t h = 0; h < w->count; h++) {
        const size_t i = h % w->inputs;
        if ((plan[h] <= w->low[i] && w->gradient[h] > 0.0f) ||
            (plan[h] >= w->high[i] && w->gradient[h] < 0.0f)) {
            w->gradient[h] = 0.0f;
            for (size_t g = 0; g < w->count; g++) {
                w->hessian[h > g ? at(h, g) : at(g, h)] = 0.0f;
            }
            w->hessian[at(h, h)] = 1.0f;
        }
    }
}

/* H + shift I = L D L'. Returns 1 if every entry of D is large enough. */
static int factorise(const sf_ngpc *w, float shift) {
    float *row = w->factor;
    const float *entry = w->hessian;
    for (size_t i = 0; i < w->count; i++, entry += i, row += i) {
        const float diagonal = entry[i] + shift;
        float rest = diagonal;
        const float *above = w->factor;
        for (size_t j = 0; j < i; j++) {
            float sum = entry[j];
            for (size_t k = 0; k < j; k++) {
                sum -= row[k] * above[k];
            }
            row[j] = sum;
            above += j + 1u;
        }
        above = w->factor; /* entry (j, j) */
        for (size_t j = 0; j < i; above += j + 2u, j++) {
            const float scaled = row[j] * *above;
            rest -= row[j] * scaled;
            row[j] = scaled;
        }
        if (!(rest > LEAST_PIVOT * diagonal)) {
            return 0;
        }
        row[i] = 1.0f / rest;
    }
    return 1;
}

/* Sum of the magnitudes of all entries: no eigenvalue is larger (Gershgorin). */
static float size_of(const sf_ngpc *w) {
    float sum = 0.0f;
    const float *const end = &w->hessian[at(w->count, 0)];
    for (const float *entry = w->hessian; entry < end; entry++) {
        sum += *entry < 0.0f ? -*entry : *entry;
    }
    return sum;
}

/* Solves (H + shift I) step = -gradient with the least damping that works; returns 1 if that is none.
 * If nothing works, which takes a Hessian that is not finite, the step is NaN and the action falls back. */
static int solve(const sf_ngpc *w) {
    const size_t nz = w->count;
    size_t attempt = 0;
    float shift = 0.0f;
    while (!factorise(w, shift)) {
        if (++attempt == 6u) {
            sf_fill(w->step, sf_nan(), nz);
            return 0;
        }
        shift = damping[attempt] * size_of(w);
    }
    const float *row = w->factor;
    for (size_t i = 0; i < nz; i++, row += i) {
        float sum = -w->gradient[i];
        for (size_t k = 0; k < i; k++) {
            sum -= row[k] * w->step[k];
        }
        w->step[i] = sum;
    }
    for (size_t i = nz; i-- > 0u;) {
        const float *entry = &w->factor[at(i, i)]; /* then (k, i), k after (k - 1, i) */
        float sum = w->step[i] * *entry;
        for (size_t k = i + 1u; k < nz; k++) {
            entry += k;
            sum -= *entry * w->step[k];
        }
        w->step[i] = sum;
    }
    return attempt == 0u;
}

int sf_ngpc_newton(const sf_ngpc *w) {
    int is_plain = solve(w);
    for (size_t h = 0; h < w->count; h++) {
        const size_t i = h % w->inputs;
        const float moved = w->plan[h] + w->step[h];
        w->plan[h] = sf_clip1(moved, w->low[i], w->high[i]);
        is_plain &= w->plan[h] == moved;
    }
    return is_plain;
}

void sf_ngpc_finish(const sf_ngpc *w, float *action, float *margin) {
    const size_t m = w->inputs, p = w->outputs, kept = (w->past_inputs - 1u) * m;
    float least = w->high[0] - w->low[0];
    for (size_t i = 0; i < m; i++) {
        const float below = w->plan[i] - w->low[i], above = w->high[i] - w->plan[i];
        least = below < least ? below : least;
        least = above < least ? above : least;
        action[i] = w->plan[i];
    }
    *margin = least;
    sf_copy(w->next_applied, action, m);
    sf_copy(&w->next_applied[m], w->applied, kept);
    for (size_t lag = w->output_lags - 1u; lag > 0u; lag--) { /* last first: `past` may be in place */
        sf_copy(&w->next_past[(lag - 1u) * p], lag > 1u ? &w->past[(lag - 2u) * p] : w->measured, p);
    }
    sf_copy(w->prediction, w->predicted, p);
}
