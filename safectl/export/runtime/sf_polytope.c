#include "sf_polytope.h"

#include "sf_core.h"
#include "sf_math.h"
#include "sf_nn.h"

#define BAND 3.81469727e-06f      /* 2^-18, see export/polytope.py */
#define DEPENDENT 7.62939453e-06f /* 2^-17 */
#define LARGEST 3.40282347e+38f

/* The working memory by name, and the position in the method; see solve/active_set.py. */
typedef struct {
    const sf_polytope *problem;
    float *unit;        /* rows x size: unit normals of the constraints */
    float *offset;      /* rows */
    float *band;        /* rows */
    float *active;      /* size x size: active rows by slot */
    float *inverse;     /* size x size */
    float *active_from; /* size: offsets of the active rows */
    float *multiplier;  /* size */
    float *used;        /* size: 1 or 0 */
    float *normal;      /* size: entering row */
    float *primal;      /* size */
    float *dual;        /* size */
    float *rest;        /* size */
    float *point;
    size_t entering; /* rows + 2 size if none */
    float pressure;
} method;

static float largest_of(float left, float right) {
    return left > right ? left : right;
}

static float magnitude(float value) {
    return value < 0.0f ? -value : value;
}

static float reach(const sf_polytope *problem, size_t j) {
    return largest_of(magnitude(problem->low[j]), magnitude(problem->high[j]));
}

static void unit_row(const method *m, size_t i) {
    const sf_polytope *const p = m->problem;
    const float *const a = &p->normals[i * p->size];
    float *const unit = &m->unit[i * p->size];
    float largest = 0.0f, width = 0.0f;
    for (size_t j = 0; j < p->size; j++) {
        largest = largest_of(magnitude(a[j]), largest);
        width += magnitude(a[j]) * reach(p, j);
    }
    largest = largest > 0.0f ? largest : 1.0f;
    for (size_t j = 0; j < p->size; j++) {
        unit[j] = a[j] / largest;
    }
    const float square = sf_dot(unit, unit, p->size);
    const float inverse = sf_reciprocal_root1(square > 0.0f ? square : 1.0f);
    const float share = inverse / largest;
    for (size_t j = 0; j < p->size; j++) {
        unit[j] = unit[j] * inverse;
    }
    m->offset[i] = ((sf_dot(a, p->point, p->size) - p->room[i]) + p->backoff[i]) * share;
    m->band[i] = (BAND * width) * share;
}

/* The entry of the corner of constraint i; entries without influence stay inside the limits. */
static float best_entry(const sf_polytope *p, size_t i, size_t j) {
    const float a = p->normals[i * p->size + j];
    if (a == 0.0f) {
        return sf_clip1(p->start[j], p->low[j], p->high[j]);
    }
    return a > 0.0f ? p->high[j] : p->low[j];
}

static void find_corner(float *corner, const sf_polytope *p) {
    float worst = LARGEST;
    size_t row = 0;
    for (size_t i = 0; i < p->rows; i++) {
        float change = 0.0f;
        for (size_t j = 0; j < p->size; j++) {
            change += p->normals[i * p->size + j] * (best_entry(p, i, j) - p->point[j]);
        }
        const float value = p->room[i] + change;
        if (value < worst) {
            worst = value;
            row = i;
        }
    }
    for (size_t j = 0; j < p->size; j++) {
        corner[j] = best_entry(p, row, j);
    }
}

/* Begins at the projection on the box, with the limits that bind as active rows. */
static void begin(method *m) {
    const sf_polytope *const p = m->problem;
    for (size_t j = 0; j < p->size * p->size; j++) {
        m->active[j] = 0.0f;
        m->inverse[j] = 0.0f;
    }
    for (size_t j = 0; j < p->size; j++) {
        const float inside = sf_clip1(p->start[j], p->low[j], p->high[j]);
        const float shift = inside - p->start[j];
        const float sign = shift > 0.0f ? 1.0f : (shift < 0.0f ? -1.0f : 0.0f);
        m->point[j] = inside;
        m->active[j * p->size + j] = sign;
        m->inverse[j * p->size + j] = sign;
        m->active_from[j] = sign * inside;
        m->multiplier[j] = magnitude(shift);
        m->used[j] = sign != 0.0f ? 1.0f : 0.0f;
    }
    m->entering = p->rows + 2u * p->size;
    m->pressure = 0.0f;
}

/* to += or -= weights . lines, over the slots in order, the sum first. */
static float combined(const float *weights, const float *lines, size_t size, size_t j) {
    float total = 0.0f;
    for (size_t s = 0; s < size; s++) {
        total += weights[s] * lines[s * size + j];
    }
    return total;
}

/* Tightens the active rows and finds the most violated row. Returns 1 if none is left. */
static int choose(method *m) {
    const sf_polytope *const p = m->problem;
    const size_t size = p->size;
    for (size_t s = 0; s < size; s++) {
        m->rest[s] = m->active_from[s] - sf_dot(&m->active[s * size], m->point, size);
    }
    for (size_t j = 0; j < size; j++) {
        m->primal[j] = combined(m->rest, m->inverse, size, j);
    }
    for (size_t j = 0; j < size; j++) {
        m->point[j] = m->point[j] + m->primal[j];
    }
    if (m->entering < p->rows + 2u * size) {
        return 0;
    }
    float worst = LARGEST;
    size_t row = 0;
    for (size_t i = 0; i < p->rows; i++) {
        const float along = sf_dot(&m->unit[i * size], m->point, size);
        const float slack = (along - m->offset[i]) + m->band[i];
        if (slack < worst) {
            worst = slack;
            row = i;
        }
    }
    for (size_t j = 0; j < 2u * size; j++) {
        const size_t entry = j < size ? j : j - size;
        const float limit = j < size ? p->low[entry] : -p->high[entry];
        const float along = j < size ? m->point[entry] : -m->point[entry];
        const float slack = (along - limit) + BAND * reach(p, entry);
        if (slack < worst) {
            worst = slack;
            row = p->rows + j;
        }
    }
    m->entering = row;
    return worst >= 0.0f;
}

/* Splits the entering row into a primal and a dual direction. Returns |primal|^2. */
static float direct(method *m) {
    const size_t size = m->problem->size;
    for (size_t s = 0; s < size; s++) {
        m->dual[s] = sf_dot(&m->inverse[s * size], m->normal, size);
    }
    for (size_t j = 0; j < size; j++) {
        m->primal[j] = m->normal[j] - combined(m->dual, m->active, size, j);
    }
    for (size_t s = 0; s < size; s++) {
        m->rest[s] = sf_dot(&m->inverse[s * size], m->primal, size);
    }
    for (size_t j = 0; j < size; j++) {
        m->primal[j] = m->primal[j] - combined(m->rest, m->active, size, j);
    }
    for (size_t s = 0; s < size; s++) {
        m->dual[s] = m->dual[s] + m->rest[s];
    }
    return sf_dot(m->primal, m->primal, size);
}

/* Copies the entering row to `normal` and returns its offset. */
static float enter(method *m) {
    const sf_polytope *const p = m->problem;
    const size_t size = p->size;
    if (m->entering < p->rows) {
        sf_copy(m->normal, &m->unit[m->entering * size], size);
        return m->offset[m->entering];
    }
    const size_t j = m->entering - p->rows;
    const size_t entry = j < size ? j : j - size;
    for (size_t k = 0; k < size; k++) {
        m->normal[k] = 0.0f;
    }
    m->normal[entry] = j < size ? 1.0f : -1.0f;
    return j < size ? p->low[entry] : -p->high[entry];
}

/* Puts the entering row in a slot, or empties the slot: one outer product on the inverse. */
static void exchange(method *m, size_t slot, int adds, float length, float offset) {
    const size_t size = m->problem->size;
    float *const line = &m->inverse[slot * size];
    if (adds != 0) {
        for (size_t j = 0; j < size; j++) {
            m->primal[j] = m->primal[j] / length;
        }
    } else {
        const float square = sf_dot(line, line, size);
        for (size_t s = 0; s < size; s++) {
            m->dual[s] = sf_dot(&m->inverse[s * size], line, size) / square;
        }
        sf_copy(m->primal, line, size);
    }
    for (size_t s = 0; s < size; s++) {
        for (size_t j = 0; j < size; j++) {
            m->inverse[s * size + j] = m->inverse[s * size + j] - m->dual[s] * m->primal[j];
        }
    }
    for (size_t j = 0; j < size; j++) {
        line[j] = adds ? m->primal[j] : 0.0f;
        m->active[slot * size + j] = adds ? m->normal[j] : 0.0f;
    }
    m->active_from[slot] = adds ? offset : 0.0f;
    m->multiplier[slot] = adds ? m->pressure : 0.0f;
    m->used[slot] = adds ? 1.0f : 0.0f;
    if (adds != 0) {
        m->entering = m->problem->rows + 2u * size;
        m->pressure = 0.0f;
    }
}

/* Steps until the entering row is met or a multiplier reaches zero. Returns 0 if neither can be. */
static int advance(method *m) {
    const size_t size = m->problem->size;
    const float offset = enter(m);
    const float length = direct(m);
    float missing = offset - sf_dot(m->normal, m->point, size);
    missing = missing > 0.0f ? missing : 0.0f;
    float partial = LARGEST;
    size_t leaving = 0, unused = size;
    for (size_t s = 0; s < size; s++) {
        unused = (unused == size && m->used[s] == 0.0f) ? s : unused;
    }
    for (size_t s = 0; s < size; s++) {
        if (m->used[s] != 0.0f && m->dual[s] > DEPENDENT && m->multiplier[s] / m->dual[s] < partial) {
            partial = m->multiplier[s] / m->dual[s];
            leaving = s;
        }
    }
    const int independent = length > DEPENDENT * DEPENDENT && unused < size;
    const float full = independent ? missing / length : LARGEST;
    const int adds = full <= partial;
    const float step = adds ? full : partial;
    if (!(step < LARGEST)) {
        return 0;
    }
    for (size_t j = 0; j < size; j++) {
        m->point[j] = m->point[j] + (independent ? step * m->primal[j] : 0.0f);
        const float reduced = m->multiplier[j] - step * m->dual[j];
        m->multiplier[j] = reduced > 0.0f ? reduced : 0.0f;
    }
    m->pressure = m->pressure + step;
    exchange(m, adds ? unused : leaving, adds, length, offset);
    return 1;
}

/* Cuts a piece off the working memory. */
static float *take(float **rest, size_t size) {
    float *const piece = *rest;
    *rest += size;
    return piece;
}

static method divide(float *action, float *work, const sf_polytope *p) {
    const size_t size = p->size;
    float *rest = work;
    method m = {.problem = p, .point = action};
    m.unit = take(&rest, p->rows * size);
    m.offset = take(&rest, p->rows);
    m.band = take(&rest, p->rows);
    m.active = take(&rest, size * size);
    m.inverse = take(&rest, size * size);
    m.active_from = take(&rest, size);
    m.multiplier = take(&rest, size);
    m.used = take(&rest, size);
    m.normal = take(&rest, size);
    m.primal = take(&rest, size);
    m.dual = take(&rest, size);
    m.rest = take(&rest, size);
    return m;
}

void sf_project_polytope_box(float *action, float *corner, float *work, const sf_polytope *problem) {
    const size_t size = problem->size;
    method m = divide(action, work, problem);
    for (size_t i = 0; i < problem->rows; i++) {
        unit_row(&m, i);
    }
    begin(&m);
    if (!sf_all_finite(problem->start, size) || !sf_all_finite(work, problem->rows * (size + 2u))) {
        sf_copy(corner, action, size);
        return;
    }
    find_corner(corner, problem);
    for (size_t step = 0; step < problem->steps; step++) {
        if (choose(&m) != 0) {
            for (size_t j = 0; j < size; j++) {
                action[j] = sf_clip1(action[j], problem->low[j], problem->high[j]);
            }
            return;
        }
        if (!advance(&m)) {
            break;
        }
    }
    sf_copy(action, corner, size);
}
